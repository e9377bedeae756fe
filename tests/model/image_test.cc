#include "model/image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "memory/arena.h"
#include "model/image_plan.h"
#include "model/memory_image.h"
#include "model/packed_matrix.h"
#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

class Image : public testing::Test {
 protected:
  Image() { ::setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1); }
  ~Image() override { ::unsetenv("XDG_CACHE_HOME"); }

  std::vector<fs::path> images() const {
    std::vector<fs::path> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder_ / "switchyard" / "images", error)) {
      found.push_back(entry.path());
    }
    return found;
  }

  TemporaryDirectory folder_;
};

TinyModel tiny(std::uint64_t seed = 1) {
  TinyModel model = TinyModel::of_type(DType::q4_1);
  model.seed = seed;
  return model;
}

TEST_F(Image, IsBuiltOnceAndThenOnlyMapped) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  // The hash of what was written just now is not remembered: it might be written again.
  fs::last_write_time(path, fs::last_write_time(path) - std::chrono::hours(1));
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  const auto progress = [&](std::uint64_t now, std::uint64_t of) { done = now, total = of; };
  const auto first = ModelImage::open(path, progress);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_GT(total, 0u);
  EXPECT_EQ(done, total);
  EXPECT_EQ((*first)->config().hidden, tiny().config.hidden);
  EXPECT_FALSE((*first)->tokenizer().empty());
  EXPECT_EQ((*first)->hash().size(), 64u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>((*first)->bytes().data()) % 4096, 0u);

  // The image, too, is new: its hash is remembered when it has stood still for a while.
  fs::last_write_time(images().front(), fs::last_write_time(path));
  ASSERT_TRUE(ModelImage::open(path));
  total = 0;
  const auto second = ModelImage::open(path, progress);
  ASSERT_TRUE(second);
  EXPECT_EQ(total, 0u);
  EXPECT_EQ((*second)->hash(), (*first)->hash());
  EXPECT_EQ(images().size(), 1u);
  const auto by_image = ModelImage::open(images().front());
  ASSERT_TRUE(by_image);
  EXPECT_EQ((*by_image)->hash(), (*first)->hash());
}

TEST_F(Image, HoldsWhatThePlanPacks) {
  const fs::path path = folder_ / "tiny.gguf";
  TinyModel model = TinyModel::of_type(DType::q8_0, Architecture::qwen2);
  model.config.tied_embeddings = false;
  write_tiny_gguf(path, model);
  const auto image = ModelImage::open(path);
  ASSERT_TRUE(image) << image.error().message;
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint);
  const auto plan = plan_image((*checkpoint)->config(), (*checkpoint)->tensors());
  ASSERT_TRUE(plan);
  for (const PlannedEntry& entry : *plan) {
    SCOPED_TRACE(entry.name);
    if (entry.is_matrix) {
      const auto matrix = (*image)->matrix(entry.name);
      ASSERT_TRUE(matrix) << matrix.error().message;
      const std::vector<std::byte> packed = pack(entry.matrix, entry.tensors);
      ASSERT_EQ(matrix->bytes.size(), packed.size());
      EXPECT_EQ(0, std::memcmp(matrix->bytes.data(), packed.data(), packed.size()));
      EXPECT_EQ(matrix->interleaved, entry.matrix.interleaved);
    } else {
      const auto vector = (*image)->vector(entry.name);
      ASSERT_TRUE(vector);
      EXPECT_EQ(std::vector<float>(vector->begin(), vector->end()), pack_vector(entry));
    }
  }
  EXPECT_FALSE((*image)->matrix("nothing"));
  EXPECT_FALSE((*image)->vector("embedding"));
  EXPECT_FALSE((*image)->matrix("output_norm"));
}

// A copy of the bytes at an aligned place.
struct AlignedCopy {
  explicit AlignedCopy(std::span<const std::byte> from) : memory(*Arena::create(from.size())) {
    std::memcpy(memory.base(), from.data(), from.size());
  }
  std::span<const std::byte> bytes(std::size_t count) const { return memory.span().first(count); }
  Arena memory;
};

TEST_F(Image, IsParsedFromMemory) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto image = *ModelImage::open(path);
  EXPECT_EQ(image->file().size(), fs::file_size(images().front()));
  const std::size_t size = image->file().size();
  auto copy = std::make_shared<AlignedCopy>(image->file());
  const std::weak_ptr<AlignedCopy> watched = copy;
  auto parsed = ModelImage::parse(copy->bytes(size), copy);
  ASSERT_TRUE(parsed) << parsed.error().message;
  copy.reset();
  EXPECT_FALSE(watched.expired());
  EXPECT_EQ((*parsed)->hash(), image->hash());
  EXPECT_EQ((*parsed)->config(), image->config());
  EXPECT_TRUE(std::ranges::equal((*parsed)->tokenizer(), image->tokenizer()));
  EXPECT_TRUE(std::ranges::equal((*parsed)->file(), image->file()));
  EXPECT_TRUE(std::ranges::equal((*parsed)->matrix("embedding")->bytes, image->matrix("embedding")->bytes));
  EXPECT_TRUE(std::ranges::equal(*(*parsed)->vector("output_norm"), *image->vector("output_norm")));
  parsed = fail(ErrorCode::cancelled, "done");
  EXPECT_TRUE(watched.expired());
}

TEST_F(Image, MemoryThatHoldsNoImageIsRefused) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto image = *ModelImage::open(path);
  const std::size_t size = image->file().size();
  AlignedCopy copy(image->file());
  EXPECT_EQ(ModelImage::parse(copy.bytes(size).subspan(8)).error().code, ErrorCode::invalid);
  EXPECT_EQ(ModelImage::parse(copy.bytes(size - 1)).error().code, ErrorCode::corrupt);
  EXPECT_EQ(ModelImage::parse({}).error().code, ErrorCode::corrupt);
  copy.memory.base()[9] ^= std::byte{1};
  EXPECT_EQ(ModelImage::parse(copy.bytes(size)).error().code, ErrorCode::corrupt);
}

TEST_F(Image, IsPlacedWithoutHoldingOnToWhereItWas) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto image = *ModelImage::open(path);
  auto copy = std::make_shared<AlignedCopy>(image->file());
  const std::weak_ptr<AlignedCopy> watched = copy;
  const auto file = copy->bytes(image->file().size());
  auto parsed = *ModelImage::parse(file, std::exchange(copy, nullptr));
  auto berth = *Arena::create(image->bytes().size() + 4096);
  EXPECT_EQ(parsed->placed_at(berth.span().first(image->bytes().size() - 1)), nullptr);
  const auto placed = parsed->placed_at(berth.span());
  ASSERT_NE(placed, nullptr);
  const std::string hash(parsed->hash());
  parsed.reset();
  EXPECT_TRUE(watched.expired());
  std::memcpy(berth.base(), image->bytes().data(), image->bytes().size());  // may come later
  EXPECT_EQ(placed->hash(), hash);
  EXPECT_TRUE(placed->file().empty());
  EXPECT_EQ(placed->bytes().data(), berth.base());
  EXPECT_EQ(placed->bytes().size(), image->bytes().size());
  EXPECT_TRUE(std::ranges::equal(placed->matrix("embedding")->bytes, image->matrix("embedding")->bytes));
  EXPECT_TRUE(std::ranges::equal(*placed->vector("output_norm"), *image->vector("output_norm")));
  EXPECT_TRUE(std::ranges::equal(placed->tokenizer(), image->tokenizer()));
}

TEST_F(Image, OtherBytesMakeAnotherImage) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto first = ModelImage::open(path);
  ASSERT_TRUE(first);
  const std::string before((*first)->hash());
  fs::remove(path);
  write_tiny_gguf(path, tiny(2));
  const auto second = ModelImage::open(path);
  ASSERT_TRUE(second);
  EXPECT_NE((*second)->hash(), before);
  EXPECT_EQ(images().size(), 2u);
}

TEST_F(Image, DamagedImageIsMadeAnew) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  ASSERT_TRUE(ModelImage::open(path));
  ASSERT_EQ(images().size(), 1u);
  fs::resize_file(images().front(), fs::file_size(images().front()) / 2);
  EXPECT_FALSE(ModelImage::open(images().front()));
  const auto again = ModelImage::open(path);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE((*again)->matrix("embedding"));
}

void flip_byte(const fs::path& path, std::uint64_t place) {
  const auto time = fs::last_write_time(path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  char byte = 0;
  file.seekg(static_cast<std::streamoff>(place)).get(byte);
  file.seekp(static_cast<std::streamoff>(place)).put(static_cast<char>(~byte));
  file.close();
  fs::last_write_time(path, time);
}

TEST_F(Image, IsCopiedAndComparedWithWhatWasWritten) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto image = *ModelImage::open(path);
  const std::size_t size = image->file().size();
  auto memory = *Arena::create(size);
  std::uint64_t copied = 0;
  const auto count = [&](std::uint64_t bytes) {
    copied += bytes;
    return true;
  };
  ASSERT_TRUE(image->copy_file(memory.span().first(size), count));
  EXPECT_EQ(copied, size);
  EXPECT_TRUE(std::ranges::equal(memory.span().first(size), image->file()));
  EXPECT_TRUE((*ModelImage::parse(memory.span().first(size)))->copy_file(memory.span(), count));
  EXPECT_EQ(image->copy_file(memory.span().first(size - 1), count).error().code, ErrorCode::out_of_range);
  EXPECT_EQ(image->copy_file(memory.span(), [](std::uint64_t) { return false; }).error().code,
            ErrorCode::cancelled);
  const auto placed = image->placed_at(memory.span());
  EXPECT_EQ(placed->copy_file(memory.span(), count).error().code, ErrorCode::unsupported);
  flip_byte(images().front(), 4096 + image->bytes().size() / 2);
  EXPECT_EQ(image->copy_file(memory.span(), count).error().code, ErrorCode::corrupt);
  flip_byte(images().front(), 4096 + image->bytes().size() / 2);
  EXPECT_TRUE(image->copy_file(memory.span(), count));
  fs::resize_file(images().front(), size - 1);
  EXPECT_EQ(image->copy_file(memory.span(), count).error().code, ErrorCode::corrupt);
}

TEST_F(Image, IsRepairedThoughNothingSaysThatItsFileChanged) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const auto before = *ModelImage::open(path);
  const std::string hash(before->hash());
  const std::vector<std::byte> bytes(before->bytes().begin(), before->bytes().end());
  const fs::path file = images().front();
  fs::last_write_time(file, fs::last_write_time(file) - std::chrono::hours(1));
  ASSERT_TRUE(ModelImage::open(path));  // its hash is remembered
  flip_byte(file, 5000);
  const auto damaged = *ModelImage::open(path);
  EXPECT_FALSE(std::ranges::equal(damaged->bytes(), bytes)) << "or this test says nothing";
  std::uint64_t built = 0;
  const auto progress = [&](std::uint64_t, std::uint64_t total) { built = total; };
  const auto repaired = ModelImage::repair(path, hash, progress);
  ASSERT_TRUE(repaired) << repaired.error().message;
  EXPECT_GT(built, 0u);
  EXPECT_EQ((*repaired)->hash(), hash);
  EXPECT_TRUE(std::ranges::equal((*repaired)->bytes(), bytes));
  EXPECT_TRUE(std::ranges::equal((*ModelImage::open(path))->bytes(), bytes));
  EXPECT_EQ(images(), std::vector{file});
  const auto made = fs::last_write_time(file);
  EXPECT_TRUE(ModelImage::repair(path, hash, progress)) << "somebody else was faster";
  EXPECT_EQ(fs::last_write_time(file), made);
}

TEST_F(Image, WhatCannotBeRepairedIsNotTakenForWhole) {
  const fs::path path = folder_ / "tiny.gguf";
  write_tiny_gguf(path, tiny());
  const std::string hash((*ModelImage::open(path))->hash());
  const fs::path file = images().front();
  const auto by_itself = ModelImage::repair(file, hash);
  EXPECT_EQ(by_itself.error().code, ErrorCode::corrupt);
  EXPECT_NE(by_itself.error().message.find(file.string()), std::string::npos) << by_itself.error().message;
  EXPECT_TRUE(fs::exists(file)) << "it is the user's";
  flip_byte(file, 5000);
  fs::remove(path);
  EXPECT_EQ(ModelImage::repair(path, hash).error().code, ErrorCode::not_found);
  EXPECT_FALSE(fs::exists(file));
  write_tiny_gguf(path, tiny(2));
  EXPECT_EQ(ModelImage::repair(path, hash).error().code, ErrorCode::invalid);
  EXPECT_TRUE(images().empty());
}

TEST_F(Image, SeveralThreadsMayBuildTheSame) {
  for (int round = 0; round < 10; ++round) {
    const fs::path path = folder_ / std::to_string(round);
    write_tiny_gguf(path, tiny(static_cast<std::uint64_t>(round) + 1));
    std::vector<std::thread> threads;
    std::vector<std::string> errors(4);
    for (std::string& error : errors) {
      threads.emplace_back([&] {
        const auto image = ModelImage::open(path);
        if (!image) error = image.error().message;
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& error : errors) EXPECT_EQ(error, "");
  }
}

TEST_F(Image, SaysWhatIsMissing) {
  const auto image = ModelImage::open(folder_ / "nothing.gguf");
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, ErrorCode::not_found);
  EXPECT_NE(image.error().message.find("nothing.gguf"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::model
