// Router, workers and hand-over together, in one process, over real engines, with a model that notices every
// wrong byte of KV.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <random>
#include <thread>

#include "pool/fake_model.h"
#include "pool/instance.h"
#include "pool/router.h"

namespace switchyard::pool {
namespace {

constexpr auto kLimit = std::chrono::seconds(60);

class Collected final : public GenerationSink {
 public:
  void on_token(const model::SampledToken& token) override {
    const std::lock_guard lock(mutex_);
    tokens_.push_back(token.token);
    changed_.notify_all();
  }
  void on_end(const GenerationEnd& end) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(over_) << "ended twice";
    end_ = end;
    over_ = true;
    changed_.notify_all();
  }
  FinishReason wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kLimit, [this] { return over_; })) << "a request does not end";
    return end_.reason;
  }
  bool wait_for_tokens(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLimit, [&] { return tokens_.size() >= count || over_; });
  }
  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  const Error& error() const { return end_.error; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::int32_t> tokens_;
  bool over_ = false;
  GenerationEnd end_;
};

class Serving : public testing::TestWithParam<std::string> {
 protected:
  struct Running {
    std::unique_ptr<Instance> instance;
    std::thread thread;
  };

  // As in production, and encrypted too.
  static constexpr bool kControlTls = true;
  const std::string shared_key_ = make_shared_key().value();

  void SetUp() override {
    auto engine = TransferEngine::open(
        pool_engine_options("gateway", GetParam(), fake_config().context, shared_key_, kControlTls));
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = *std::move(engine);
    router_ = std::make_unique<Router>(
        Router::Options{.models = {{.id = "fake", .image = std::make_shared<FakeImage>(), .context = 2048}}},
        [](const std::string&, int, const std::string&) {});
    channel_ = Channel::create(
        *engine_,
        [this](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
          router_->on_message(from, type, payload);
        },
        [this](const PeerAddress& peer, const Error& why) { router_->on_peer_lost(peer, why); });
    router_->attach(channel_);
  }

  void TearDown() override {
    if (router_) router_->shut_down({ErrorCode::cancelled, "the test is over"});
    while (!running_.empty()) end(running_.begin()->first);
    if (channel_) channel_->close();
    engine_.reset();
  }

  void start(const std::string& name, Role role, std::uint64_t kv_bytes = 4 << 20) {
    router_->instance_changed(name, role, "starting", "", 0, 0);
    auto instance = Instance::create({.name = name,
                                      .role = role,
                                      .fabric = GetParam(),
                                      .kv_bytes = kv_bytes,
                                      .chunk_tokens = 64,
                                      .supervisor = engine_->address(),
                                      .shared_key = shared_key_,
                                      .control_tls = kControlTls},
                                     std::make_shared<FakeImage>(), make_fake_runtime);
    ASSERT_TRUE(instance) << instance.error().message;
    Running& running = running_[name];
    running.instance = *std::move(instance);
    running.thread = std::thread([worker = running.instance.get()] { worker->run(); });
  }
  void start_both() {
    start("prefill-0", Role::prefill);
    start("decode-0", Role::decode);
    const auto ready = router_->wait_ready(monotonic_now() + kLimit);
    ASSERT_TRUE(ready) << ready.error().message;
  }
  // As abrupt as it gets inside of one process.
  void end(const std::string& name) {
    Running& running = running_[name];
    running.instance->stop();
    running.thread.join();
    running_.erase(name);
  }

  std::vector<std::int32_t> prompt(std::size_t length) {
    std::vector<std::int32_t> tokens(length);
    for (auto& token : tokens) token = static_cast<std::int32_t>(random_() % (kFakeVocab - 1)) + 1;
    return tokens;
  }

  struct Asked {
    RequestId id = 0;
    std::vector<std::int32_t> prompt;
    std::uint32_t count = 0;
    std::shared_ptr<Collected> got = std::make_shared<Collected>();
  };
  Asked ask(std::size_t length, std::uint32_t count) {
    Asked asked{.prompt = prompt(length), .count = count};
    auto id = router_->submit({.model = "fake",
                               .prompt = asked.prompt,
                               .sampling = {.temperature = 0},
                               .max_tokens = count,
                               .end_tokens = {0}},
                              asked.got);
    EXPECT_TRUE(id) << id.error().message;
    if (id) asked.id = *id;
    return asked;
  }
  static void check(const Asked& asked) {
    EXPECT_EQ(asked.got->wait(), FinishReason::length) << asked.got->error().message;
    EXPECT_EQ(asked.got->tokens(), fake_tokens(asked.prompt, asked.count)) << asked.prompt.size();
  }

  // Waits until the instances say that no block is held.
  void expect_no_blocks_held() {
    const TimePoint limit = monotonic_now() + kLimit;
    double used = -1;
    while (monotonic_now() < limit) {
      used = 0;
      std::size_t reporting = 0;
      for (const auto& family : router_->metrics()) {
        if (family.name != "switchyard_instance_kv_blocks_used") continue;
        for (const auto& metric : family.metric) used += metric.gauge.value;
        reporting = family.metric.size();
      }
      if (used == 0 && reporting == running_.size()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << used << " blocks are still held";
  }

  std::mt19937 random_{7};
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<Router> router_;
  std::shared_ptr<Channel> channel_;
  std::map<std::string, Running> running_;
};

TEST_P(Serving, OneRequest) {
  start_both();
  check(ask(5, 10));
  check(ask(1, 1));
  check(ask(64, 3));
  check(ask(65, 40));
  expect_no_blocks_held();
}

TEST_P(Serving, ManyRequestsOfAllLengths) {
  start_both();
  std::vector<Asked> asked;
  for (int i = 0; i < 60; ++i) asked.push_back(ask(1 + random_() % 700, 1 + random_() % 60));
  for (const auto& each : asked) check(each);
  expect_no_blocks_held();
}

TEST_P(Serving, UnifiedGivesTheSame) {
  start("unified-0", Role::unified);
  std::vector<Asked> asked;
  for (int i = 0; i < 30; ++i) asked.push_back(ask(1 + random_() % 700, 1 + random_() % 60));
  for (const auto& each : asked) check(each);
  expect_no_blocks_held();
}

TEST_P(Serving, RequestsWaitForInstances) {
  const Asked early = ask(20, 5);
  start_both();
  check(early);
}

TEST_P(Serving, ScarceBlocksCostTimeNotText) {
  start("prefill-0", Role::prefill, 1 << 20);
  start("decode-0", Role::decode, 16 * 1536 * 16);  // 256 blocks: 4096 tokens
  std::vector<Asked> asked;
  for (int i = 0; i < 40; ++i) asked.push_back(ask(200 + random_() % 100, 100 + random_() % 200));
  for (const auto& each : asked) check(each);
  expect_no_blocks_held();
}

TEST_P(Serving, CancelAtAnyMomentGivesBlocksBack) {
  start_both();
  for (int round = 0; round < 40; ++round) {
    const Asked victim = ask(1 + random_() % 600, 200);
    const Asked other = ask(30, 10);
    if (round % 3 != 0) victim.got->wait_for_tokens(round % 5);
    router_->cancel(victim.id);
    const auto reason = victim.got->wait();
    EXPECT_TRUE(reason == FinishReason::cancelled || reason == FinishReason::length);
    check(other);
  }
  expect_no_blocks_held();
}

TEST_P(Serving, InstancesThatEndAreNotMissed) {
  start_both();
  for (const char* victim : {"decode-0", "prefill-0", "decode-0", "prefill-0"}) {
    std::vector<Asked> asked;
    for (int i = 0; i < 16; ++i) asked.push_back(ask(1 + random_() % 500, 60));
    asked[random_() % asked.size()].got->wait_for_tokens(random_() % 30);
    end(victim);
    start(victim, victim[0] == 'd' ? Role::decode : Role::prefill);
    for (const auto& each : asked) check(each);
  }
  expect_no_blocks_held();
}

TEST_P(Serving, BadRequestsAreRefused) {
  const auto submit = [this](GenerationRequest request) {
    return router_->submit(std::move(request), std::make_shared<Collected>()).error().code;
  };
  EXPECT_EQ(submit({.model = "other", .prompt = {1}, .max_tokens = 1}), ErrorCode::not_found);
  EXPECT_EQ(submit({.model = "fake", .prompt = {}, .max_tokens = 1}), ErrorCode::invalid);
  EXPECT_EQ(submit({.model = "fake", .prompt = {1}, .max_tokens = 0}), ErrorCode::invalid);
  EXPECT_EQ(submit({.model = "fake", .prompt = {1}, .max_tokens = 2048}), ErrorCode::out_of_range);
}

TEST_P(Serving, AFullQueuePushesBack) {
  for (int i = 0; i < 1024; ++i) ask(1, 1);
  const auto refused =
      router_->submit({.model = "fake", .prompt = {1}, .max_tokens = 1}, std::make_shared<Collected>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
}

INSTANTIATE_TEST_SUITE_P(Fabrics, Serving, testing::Values("shm", "net"),
                         [](const auto& fabric) { return fabric.param; });

}  // namespace
}  // namespace switchyard::pool
