#include "pool/model_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"
#include "pool/checkpoint_breaker.h"

namespace switchyard::pool {
namespace {

namespace fs = std::filesystem;
using Image = std::shared_ptr<const model::ModelImage>;
using Handle = std::shared_ptr<const CachedImage>;

constexpr auto kLimit = std::chrono::seconds(60);

// What a callback brings, for a test to wait for.
template <class T>
class Answer {
 public:
  std::function<void(Result<T>)> callback() {
    return [state = state_](Result<T> result) {
      const std::lock_guard lock(state->mutex);
      state->thread = std::this_thread::get_id();
      state->results.push_back(std::move(result));
      state->changed.notify_all();
    };
  }
  Result<T> wait() {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_for(lock, kLimit, [this] { return !state_->results.empty(); })) {
      return fail(ErrorCode::timed_out, "no answer");
    }
    EXPECT_EQ(state_->results.size(), 1u);
    EXPECT_NE(state_->thread, std::this_thread::get_id());
    return std::exchange(state_->results.front(), fail(ErrorCode::cancelled, "taken"));
  }
  std::size_t count() const {
    const std::lock_guard lock(state_->mutex);
    return state_->results.size();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Result<T>> results;
    std::thread::id thread;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

template <class F>
bool comes_true(F&& condition) {
  for (const TimePoint end = monotonic_now() + kLimit; monotonic_now() < end; std::this_thread::yield()) {
    if (condition()) return true;
  }
  return false;
}

class ModelCacheTest : public testing::Test {
 protected:
  ModelCacheTest() { ::setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1); }
  ~ModelCacheTest() override { ::unsetenv("XDG_CACHE_HOME"); }

  fs::path checkpoint(int number) {
    const fs::path path = folder_ / fmt::format("{}.gguf", number);
    model::TinyModel model;
    model.seed = static_cast<std::uint64_t>(number) + 1;
    if (!fs::exists(path)) model::write_tiny_gguf(path, model);
    return path;
  }
  Image image(int number) { return *model::ModelImage::open(checkpoint(number)); }
  fs::path image_file(const Image& image) const {
    return folder_ / "cache" / "switchyard" / "images" / (std::string(image->hash()) + ".image");
  }

  static Result<Handle> acquire(ModelCache& cache, const Image& image) {
    Answer<Handle> answer;
    cache.acquire(image, answer.callback());
    return answer.wait();
  }
  static Result<Image> open(ModelCache& cache, const fs::path& path) {
    Answer<Image> answer;
    cache.open(path, answer.callback());
    return answer.wait();
  }
  // Whole pages of one image; all have the same.
  std::uint64_t image_bytes() { return (image(0)->file().size() + 4095) / 4096 * 4096; }

  model::TemporaryDirectory folder_;
};

void expect_is_whole(const CachedImage& cached, const Image& image) {
  auto memory = SharedMemory::open(cached.memory(), SharedMemory::Access::read);
  ASSERT_TRUE(memory) << memory.error().message;
  const auto parsed = model::ModelImage::parse(memory->span());
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ((*parsed)->hash(), image->hash());
  EXPECT_TRUE(std::ranges::equal((*parsed)->bytes(), image->bytes()));
}

TEST_F(ModelCacheTest, BringsAnImageOnceAndFindsItAgain) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const auto opened = open(*cache, checkpoint(1));
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_FALSE(cache->holds((*opened)->hash()));
  const auto first = acquire(*cache, *opened);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_TRUE(cache->holds((*opened)->hash()));
  const auto second = acquire(*cache, *opened);
  ASSERT_TRUE(second);
  EXPECT_EQ((*first)->memory(), (*second)->memory());
  expect_is_whole(**first, *opened);
  const auto usage = cache->usage();
  EXPECT_EQ(usage.images, 1u);
  EXPECT_EQ(usage.misses, 1u);
  EXPECT_EQ(usage.hits, 1u);
  EXPECT_EQ(usage.read_bytes, (*opened)->file().size());
  EXPECT_EQ(usage.held_bytes, usage.used_bytes);
}

TEST_F(ModelCacheTest, SeveralWhoAskForTheSameShareOneReading) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const Image wanted = image(1);
  std::vector<Answer<Handle>> answers(20);
  for (auto& answer : answers) cache->acquire(wanted, answer.callback());
  for (auto& answer : answers) EXPECT_TRUE(answer.wait());
  EXPECT_EQ(cache->usage().read_bytes, wanted->file().size());
}

TEST_F(ModelCacheTest, TheLeastRecentlyUsedLeavesFirst) {
  const auto cache = ModelCache::create({.budget_bytes = 3 * image_bytes()});
  std::vector<Image> images;
  for (int i = 0; i < 4; ++i) images.push_back(image(i));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(acquire(*cache, images[static_cast<std::size_t>(i)]));
  ASSERT_TRUE(acquire(*cache, images[0]));  // used again
  ASSERT_TRUE(acquire(*cache, images[3]));
  EXPECT_TRUE(cache->holds(images[0]->hash()));
  EXPECT_FALSE(cache->holds(images[1]->hash()));
  EXPECT_TRUE(cache->holds(images[2]->hash()));
  EXPECT_TRUE(cache->holds(images[3]->hash()));
  EXPECT_EQ(cache->usage().evictions, 1u);
}

TEST_F(ModelCacheTest, WhatIsHeldStaysAndWhoWaitsIsServedInOrder) {
  const auto cache = ModelCache::create({.budget_bytes = 2 * image_bytes()});
  auto first = acquire(*cache, image(0));
  auto second = acquire(*cache, image(1));
  ASSERT_TRUE(first && second);
  Answer<Handle> third;
  Answer<Handle> fourth;
  cache->acquire(image(2), third.callback());
  cache->acquire(image(3), fourth.callback());
  // What is there is handed out past those who wait.
  EXPECT_TRUE(acquire(*cache, image(0)));
  EXPECT_EQ(third.count() + fourth.count(), 0u);
  EXPECT_EQ(cache->usage().waiting, 2u);
  first = fail(ErrorCode::cancelled, "let go");
  auto got_third = third.wait();
  ASSERT_TRUE(got_third) << got_third.error().message;
  EXPECT_FALSE(cache->holds(image(0)->hash()));
  EXPECT_TRUE(cache->holds(image(1)->hash()));
  EXPECT_EQ(fourth.count(), 0u);
  got_third = fail(ErrorCode::cancelled, "let go");
  EXPECT_TRUE(fourth.wait());
  expect_is_whole(**second, image(1));
}

TEST_F(ModelCacheTest, PrefetchesTakeOnlyRoomThatNobodyHas) {
  const auto cache = ModelCache::create({.budget_bytes = 2 * image_bytes()});
  ASSERT_TRUE(acquire(*cache, image(0)));
  for (const int i : {0, 1, 1, 2}) cache->prefetch(image(i));
  EXPECT_TRUE(comes_true([&] { return cache->holds(image(1)->hash()); }));
  const auto held = acquire(*cache, image(1));
  ASSERT_TRUE(held);
  expect_is_whole(**held, image(1));
  // What is asked for makes room for itself; by then the last prefetch has been looked at.
  ASSERT_TRUE(acquire(*cache, image(3)));
  EXPECT_FALSE(cache->holds(image(2)->hash()));
  EXPECT_FALSE(cache->holds(image(0)->hash()));
  EXPECT_EQ(cache->usage().evictions, 1u);
  cache->forget(image(3)->hash());
  EXPECT_TRUE(comes_true([&] { return cache->usage().used_bytes == image_bytes(); }));
  cache->prefetch(image(2));
  EXPECT_TRUE(comes_true([&] { return cache->holds(image(2)->hash()); }));
}

TEST_F(ModelCacheTest, WhatIsLargerThanTheBudgetIsRefused) {
  const auto cache = ModelCache::create({.budget_bytes = image_bytes() - 1});
  const auto refused = acquire(*cache, image(0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::out_of_range);
  EXPECT_EQ(cache->usage().used_bytes, 0u);
}

TEST_F(ModelCacheTest, ForgottenImagesLeaveWhenNobodyHoldsThem) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const Image wanted = image(0);
  cache->forget("nothing");
  auto handle = acquire(*cache, wanted);
  ASSERT_TRUE(handle);
  cache->forget(wanted->hash());
  EXPECT_TRUE(cache->holds(wanted->hash()));
  expect_is_whole(**handle, wanted);
  handle = fail(ErrorCode::cancelled, "let go");
  EXPECT_FALSE(cache->holds(wanted->hash()));
  EXPECT_TRUE(comes_true([&] { return cache->usage().used_bytes == 0; }));
  ASSERT_TRUE(acquire(*cache, wanted));  // and let go at once
  EXPECT_TRUE(cache->holds(wanted->hash()));
  cache->forget(wanted->hash());
  EXPECT_FALSE(cache->holds(wanted->hash()));
}

TEST_F(ModelCacheTest, AFileThatWasCutShortIsAnError) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const Image wanted = image(0);
  fs::resize_file(image_file(wanted), wanted->file().size() / 2);
  const auto cut = acquire(*cache, wanted);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::corrupt);
  EXPECT_EQ(cache->usage().used_bytes, 0u);
  EXPECT_EQ(cache->usage().failures, 1u);
  // The checkpoint's image is made anew.
  const auto again = open(*cache, checkpoint(0));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(acquire(*cache, *again));
}

// One bit of each part, of which the file's time says nothing.
TEST_F(ModelCacheTest, ADamagedFileIsNeverHandedOutAndCanBeMadeAnew) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  Image wanted = image(0);
  const std::string hash(wanted->hash());
  const std::vector<std::byte> sound(wanted->bytes().begin(), wanted->bytes().end());
  const std::uint64_t size = wanted->file().size();
  for (const std::uint64_t place : {std::uint64_t{30}, std::uint64_t{4096}, size / 2, size - 1}) {
    SCOPED_TRACE(place);
    const auto time = fs::last_write_time(image_file(wanted));
    {
      std::fstream file(image_file(wanted), std::ios::in | std::ios::out | std::ios::binary);
      char byte = 0;
      file.seekg(static_cast<std::streamoff>(place)).get(byte);
      file.seekp(static_cast<std::streamoff>(place)).put(static_cast<char>(byte ^ 4));
    }
    fs::last_write_time(image_file(wanted), time);
    EXPECT_EQ(acquire(*cache, wanted).error().code, ErrorCode::corrupt);
    EXPECT_FALSE(cache->holds(hash));
    EXPECT_EQ(cache->usage().used_bytes, 0u);
    Answer<Image> answer;
    cache->repair(checkpoint(0), hash, answer.callback());
    const auto repaired = answer.wait();
    ASSERT_TRUE(repaired) << repaired.error().message;
    wanted = *repaired;
    EXPECT_TRUE(std::ranges::equal(wanted->bytes(), sound));
    const auto handle = acquire(*cache, wanted);
    ASSERT_TRUE(handle) << handle.error().message;
    expect_is_whole(**handle, wanted);
    cache->forget(hash);
  }
  fs::remove(checkpoint(0));
  fs::resize_file(image_file(wanted), size / 2);
  for (const char* try_of : {"first", "second"}) {
    SCOPED_TRACE(try_of);
    Answer<Image> answer;
    cache->repair(folder_ / "0.gguf", hash, answer.callback());
    EXPECT_EQ(answer.wait().error().code, ErrorCode::not_found);
  }
  EXPECT_EQ(cache->usage().failures, 5u) << "its breaker is not asked";
}

TEST_F(ModelCacheTest, AFileThatWasWrittenOverIsAnError) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const Image wanted = image(0);
  {
    std::fstream file(image_file(wanted), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20);
    file.write("other", 5);
  }
  EXPECT_EQ(acquire(*cache, wanted).error().code, ErrorCode::corrupt);
}

TEST_F(ModelCacheTest, ACheckpointThatChangedGivesAnotherImage) {
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20});
  const auto before = open(*cache, checkpoint(0));
  ASSERT_TRUE(before);
  fs::remove(checkpoint(0));
  fs::rename(checkpoint(1), folder_ / "0.gguf");
  const auto after = open(*cache, folder_ / "0.gguf");
  ASSERT_TRUE(after);
  EXPECT_NE((*before)->hash(), (*after)->hash());
}

TEST_F(ModelCacheTest, ABreakerOpensWithItsReasonAndClosesAfterThePause) {
  std::atomic<std::int64_t> seconds = 0;
  const auto cache = ModelCache::create({.budget_bytes = 64 << 20,
                                         .first_pause = std::chrono::seconds(10),
                                         .longest_pause = std::chrono::seconds(30),
                                         .now = [&] { return TimePoint(std::chrono::seconds(seconds)); }});
  const fs::path path = folder_ / "broken.gguf";
  std::ofstream(path) << "this is no model";
  const auto first = open(*cache, path);
  ASSERT_FALSE(first);
  const auto second = open(*cache, path);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, first.error().code);
  EXPECT_NE(second.error().message.find(first.error().message), std::string::npos) << second.error().message;
  EXPECT_NE(second.error().message.find("again in 10 s"), std::string::npos) << second.error().message;
  EXPECT_EQ(cache->usage().failures, 1u) << "it was tried again";
  EXPECT_TRUE(open(*cache, checkpoint(0))) << "others are not concerned";
  seconds = 10;
  EXPECT_FALSE(open(*cache, path));
  EXPECT_EQ(cache->usage().failures, 2u);
  seconds = 29;
  EXPECT_NE(open(*cache, path).error().message.find("failed 2 times"), std::string::npos);
  EXPECT_EQ(cache->usage().failures, 2u) << "the second pause is twice the first";
  seconds = 30;
  fs::remove(path);
  fs::rename(checkpoint(1), path);
  EXPECT_TRUE(open(*cache, path));
  EXPECT_TRUE(open(*cache, path));
}

TEST(CheckpointBreaker, PausesDoubleUpToTheLongest) {
  CheckpointBreaker breaker(std::chrono::seconds(1), std::chrono::seconds(5));
  TimePoint now{};
  for (const int pause : {1, 2, 4, 5, 5}) {
    EXPECT_TRUE(breaker.check("a", now));
    breaker.failed("a", {ErrorCode::corrupt, "why"}, now);
    now += std::chrono::seconds(pause) - Nanos(1);
    EXPECT_EQ(breaker.check("a", now).error().code, ErrorCode::corrupt) << pause;
    now += Nanos(1);
  }
  breaker.failed("a", {ErrorCode::io, "why"}, now);
  breaker.succeeded("a");
  EXPECT_TRUE(breaker.check("a", now));
  for (int i = 0; i < 5000; ++i) breaker.failed(std::to_string(i), {ErrorCode::io, "why"}, now + Nanos(i));
  EXPECT_TRUE(breaker.check("0", now)) << "remembered without end";
  EXPECT_FALSE(breaker.check("4999", now));
}

TEST_F(ModelCacheTest, TooManyWhoWaitArePushedBack) {
  const auto cache = ModelCache::create({.budget_bytes = image_bytes()});
  auto held = acquire(*cache, image(0));
  ASSERT_TRUE(held);
  const Image wanted = image(1);
  std::atomic<int> refused = 0;
  std::atomic<int> served = 0;
  constexpr int kCalls = 5000;
  for (int i = 0; i < kCalls; ++i) {
    cache->acquire(wanted, [&](const Result<Handle>& result) {
      ++(result ? served : refused);
      EXPECT_TRUE(result || result.error().code == ErrorCode::exhausted);
    });
  }
  EXPECT_TRUE(comes_true([&] { return refused > 0; }));
  EXPECT_EQ(served, 0);
  held = fail(ErrorCode::cancelled, "let go");
  EXPECT_TRUE(comes_true([&] { return served + refused == kCalls; }));
  EXPECT_GT(served, 0);
}

TEST_F(ModelCacheTest, CallbacksMayCallTheCache) {
  const auto cache = ModelCache::create({.budget_bytes = image_bytes()});
  Answer<Handle> second;
  const Image other = image(1);
  cache->acquire(image(0), [&](Result<Handle> handle) {
    EXPECT_TRUE(handle);
    cache->acquire(other, second.callback());
    EXPECT_TRUE(cache->holds(image(0)->hash()));
  });
  EXPECT_TRUE(second.wait());
}

TEST_F(ModelCacheTest, EndsWithWorkUnderWay) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> answers = 0;
    int calls = 0;
    Handle kept;
    std::mutex mutex;
    {
      const auto cache = ModelCache::create({.budget_bytes = 2 * image_bytes()});
      for (int i = 0; i < 6; ++i) {
        ++calls;
        cache->open(checkpoint(i), [&](const Result<Image>&) { ++answers; });
        ++calls;
        cache->acquire(image(i), [&](Result<Handle> handle) {
          const std::lock_guard lock(mutex);
          ++answers;
          if (handle) kept = *std::move(handle);
        });
      }
      EXPECT_TRUE(comes_true([&] { return answers >= round / 2; }));
    }
    EXPECT_EQ(answers, calls) << "each is answered once";
    if (kept) {  // outlives the cache, with its memory
      EXPECT_TRUE(SharedMemory::open(kept->memory(), SharedMemory::Access::read));
    }
  }
}

TEST_F(ModelCacheTest, TheBudgetIsNeverExceeded) {
  constexpr int kImages = 8;
  constexpr int kThreads = 4;
  const std::uint64_t budget = 3 * image_bytes();
  const auto cache = ModelCache::create({.budget_bytes = budget});
  std::vector<Image> images;
  for (int i = 0; i < kImages; ++i) images.push_back(image(i));
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      Handle held;  // at most one each: four do not fit together
      for (int round = 0; round < 200; ++round) {
        const Image& wanted = images[random() % kImages];
        held.reset();  // or those who wait would wait for each other
        if (random() % 16 == 0) cache->forget(wanted->hash());
        Answer<Handle> answer;
        cache->acquire(wanted, answer.callback());
        auto handle = answer.wait();
        if (!handle) {
          ++wrong;
          continue;
        }
        held = *std::move(handle);
        const auto usage = cache->usage();
        if (usage.used_bytes > budget || usage.held_bytes > usage.used_bytes) ++wrong;
        const auto memory = SharedMemory::open(held->memory(), SharedMemory::Access::read);
        if (!memory || (*model::ModelImage::parse(memory->span()))->hash() != wanted->hash()) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  const auto usage = cache->usage();
  EXPECT_EQ(usage.held_bytes, 0u);
  EXPECT_GT(usage.evictions, 0u);
  EXPECT_EQ(usage.waiting, 0u);
  for (const Image& each : images) cache->forget(each->hash());
  EXPECT_TRUE(comes_true([&] { return cache->usage().used_bytes == 0; }));
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("switchyard-image"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace switchyard::pool
