// Dispatcher, policies, instances and hand-over together, in one process, over real engines, with models that
// notice every wrong byte of KV.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <random>
#include <thread>

#include "pool/dispatcher.h"
#include "pool/fake_cache.h"
#include "pool/fake_model.h"
#include "pool/instance.h"
#include "schedule/policy.h"

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
  bool ended() {
    const std::lock_guard lock(mutex_);
    return over_;
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

struct Setting {
  std::string fabric;
  schedule::PolicyKind policy;
};

class Serving : public testing::TestWithParam<Setting> {
 protected:
  struct Running {
    std::unique_ptr<Instance> instance;
    std::thread thread;
  };

  // As in production, and encrypted too.
  static constexpr bool kControlTls = true;
  static constexpr std::uint64_t kSlab = 16 << 10;
  static constexpr std::uint32_t kModels = 5;
  const std::string shared_key_ = make_shared_key().value();

  // Of different shapes: two sizes of blocks.
  static FakeModel fake(std::uint32_t model) {
    return {.layers = 3 + model % 2, .salt = model + 1, .weight_bytes = (16u + model) << 12, .readings = 2};
  }
  static std::string name_of(std::uint32_t model) { return "fake-" + std::to_string(model); }

  void SetUp() override {
    auto engine =
        TransferEngine::open(pool_engine_options("gateway", GetParam().fabric, shared_key_, kControlTls));
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = *std::move(engine);
  }

  void open(std::uint64_t kv_bytes = 4 << 20, std::uint64_t host_kv_bytes = 1 << 20) {
    kv_bytes_ = kv_bytes;
    auto dispatcher = Dispatcher::create({.policy = GetParam().policy,
                                          .policy_options = {.max_rows = 32, .max_prefill_tokens = 2048},
                                          .max_queue = 1024,
                                          .slab_bytes = kSlab,
                                          .kv_bytes = kv_bytes,
                                          .berth_bytes = kBerth},
                                         host_kv_bytes, cache_, nullptr,
                                         [](const std::string&, int, const std::string&) {});
    ASSERT_TRUE(dispatcher) << dispatcher.error().message;
    dispatcher_ = *std::move(dispatcher);
    channel_ = Channel::create(
        *engine_,
        [this](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
          dispatcher_->on_message(from, type, payload);
        },
        [this](const PeerAddress& peer, const Error& why) { dispatcher_->on_peer_lost(peer, why); });
    dispatcher_->attach(channel_);
    // Models stay where they are with `static`: no more than there are berths.
    models_ = GetParam().policy == schedule::PolicyKind::fixed ? 2 : kModels;
    for (std::uint32_t i = 0; i < models_; ++i) {
      ASSERT_TRUE(dispatcher_->add_opened_model({.id = name_of(i), .path = "1"},
                                                std::make_shared<const FakeImage>(fake(i))));
    }
  }

  void TearDown() override {
    if (dispatcher_) dispatcher_->shut_down({ErrorCode::cancelled, "the test is over"});
    while (!running_.empty()) end(running_.begin()->first);
    if (channel_) channel_->close();
    engine_.reset();
    dispatcher_.reset();
  }

  void start(const std::string& name, Role role) {
    dispatcher_->instance_changed(name, role, "starting", "", 0, 0);
    auto instance = Instance::create({.name = name,
                                      .role = role,
                                      .fabric = GetParam().fabric,
                                      .kv_bytes = kv_bytes_,
                                      .slab_bytes = kSlab,
                                      .berths = 2,
                                      .berth_bytes = kBerth,
                                      .supervisor = engine_->address(),
                                      .shared_key = shared_key_,
                                      .control_tls = kControlTls},
                                     open_fake_image, make_fake_runtime);
    ASSERT_TRUE(instance) << instance.error().message;
    Running& running = running_[name];
    running.instance = *std::move(instance);
    running.thread = std::thread([worker = running.instance.get()] { worker->run(); });
  }
  void start_both() {
    start("prefill-0", Role::prefill);
    start("decode-0", Role::decode);
    const auto ready = dispatcher_->wait_ready(monotonic_now() + kLimit);
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
    std::uint32_t model = 0;
    std::vector<std::int32_t> prompt;
    std::uint32_t count = 0;
    std::shared_ptr<Collected> got = std::make_shared<Collected>();
  };
  Asked ask(std::size_t length, std::uint32_t count) {
    return ask_model(static_cast<std::uint32_t>(random_() % models_), length, count);
  }
  Asked ask_model(std::uint32_t model, std::size_t length, std::uint32_t count) {
    Asked asked{.model = model, .prompt = prompt(length), .count = count};
    auto id = dispatcher_->submit({.model = name_of(model),
                                   .prompt = asked.prompt,
                                   .sampling = {.temperature = 0},
                                   .max_tokens = count,
                                   .end_tokens = {0}},
                                  asked.got);
    EXPECT_TRUE(id) << id.error().error.message;
    if (id) asked.id = *id;
    return asked;
  }
  static void check(const Asked& asked) {
    EXPECT_EQ(asked.got->wait(), FinishReason::length) << asked.got->error().message;
    EXPECT_EQ(asked.got->tokens(), fake_tokens(asked.prompt, asked.count, fake(asked.model)))
        << asked.prompt.size();
  }

  void wait_until_usable(std::uint32_t model) {
    for (const TimePoint limit = monotonic_now() + kLimit; monotonic_now() < limit;) {
      dispatcher_->tick();
      if (dispatcher_->models()[model].state == ModelState::ready) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    FAIL() << dispatcher_->models()[model].detail;
  }

  double sum_of(const std::string& name) {
    double sum = 0;
    for (const auto& family : dispatcher_->metrics()) {
      if (family.name != "switchyard_" + name) continue;
      for (const auto& metric : family.metric) sum += metric.gauge.value + metric.counter.value;
    }
    return sum;
  }

  // Waits until the instances say that no block is held, and nothing is left of any request.
  void expect_nothing_held() {
    const TimePoint limit = monotonic_now() + kLimit;
    double used = -1, left = -1, host = -1;
    while (monotonic_now() < limit) {
      used = sum_of("instance_kv_blocks_used") - sum_of("instance_prefix_blocks_unused");
      left = sum_of("pool_departures") + sum_of("pool_requests_placed") + sum_of("pool_requests_waiting");
      host = sum_of("host_kv_bytes");
      if (used == 0 && left == 0 && host == 0 &&
          sum_of("instance_up") == static_cast<double>(running_.size()))
        return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << used << " blocks, " << host << " bytes in host memory and " << left
           << " attempts are still held";
  }

  static constexpr std::uint64_t kBerth = 32 << 12;
  std::mt19937 random_{7};
  std::uint64_t kv_bytes_ = 0;
  std::uint32_t models_ = 0;
  FakeCache cache_;
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::shared_ptr<Channel> channel_;
  std::map<std::string, Running> running_;
};

TEST_P(Serving, OneRequest) {
  open();
  start_both();
  check(ask(5, 10));
  check(ask(1, 1));
  check(ask(64, 3));
  check(ask(65, 40));
  expect_nothing_held();
}

TEST_P(Serving, ManyRequestsOfAllLengths) {
  open();
  start_both();
  std::vector<Asked> asked;
  for (int i = 0; i < 80; ++i) asked.push_back(ask(1 + random_() % 700, 1 + random_() % 60));
  for (const auto& each : asked) check(each);
  if (models_ > 2) {
    EXPECT_GT(sum_of("switches_total"), models_);
  }
  expect_nothing_held();
}

TEST_P(Serving, UnifiedGivesTheSame) {
  open();
  start("unified-0", Role::unified);
  std::vector<Asked> asked;
  for (int i = 0; i < 40; ++i) asked.push_back(ask(1 + random_() % 700, 1 + random_() % 60));
  for (const auto& each : asked) check(each);
  expect_nothing_held();
}

TEST_P(Serving, SeveralInstancesGiveTheSame) {
  open(2 << 20);
  for (const char* name : {"decode-0", "decode-1"}) start(name, Role::decode);
  for (const char* name : {"prefill-0", "prefill-1"}) start(name, Role::prefill);
  start("unified-0", Role::unified);
  ASSERT_TRUE(dispatcher_->wait_ready(monotonic_now() + kLimit));
  std::vector<Asked> asked;
  for (int i = 0; i < 80; ++i) asked.push_back(ask(1 + random_() % 500, 1 + random_() % 100));
  for (const auto& each : asked) check(each);
  expect_nothing_held();
}

TEST_P(Serving, RequestsWaitForInstances) {
  open();
  const Asked early = ask(20, 5);
  start_both();
  check(early);
}

// Far more is asked for than fits: KV goes to host memory and back, and where that is full is computed again.
TEST_P(Serving, ScarceMemoryCostsTimeNotText) {
  for (const std::uint64_t host : {1 << 20, 64 << 10, 0}) {
    open(512 << 10, host);
    start_both();
    std::vector<Asked> asked;
    for (int i = 0; i < 40; ++i) asked.push_back(ask(200 + random_() % 100, 100 + random_() % 100));
    for (const auto& each : asked) check(each);
    expect_nothing_held();
    TearDown();
    SetUp();
  }
  open();
}

TEST_P(Serving, CancelAtAnyMomentGivesBlocksBack) {
  open();
  start_both();
  for (int round = 0; round < 60; ++round) {
    const Asked victim = ask(1 + random_() % 600, 200);
    const Asked other = ask(30, 10);
    if (round % 3 != 0) victim.got->wait_for_tokens(round % 5);
    dispatcher_->cancel(victim.id);
    const auto reason = victim.got->wait();
    EXPECT_TRUE(reason == FinishReason::cancelled || reason == FinishReason::length);
    check(other);
  }
  expect_nothing_held();
}

TEST_P(Serving, InstancesThatEndAreNotMissed) {
  open(768 << 10, 256 << 10);
  start_both();
  for (const char* victim : {"decode-0", "prefill-0", "decode-0", "prefill-0"}) {
    std::vector<Asked> asked;
    for (int i = 0; i < 24; ++i) asked.push_back(ask(1 + random_() % 500, 60));
    asked[random_() % asked.size()].got->wait_for_tokens(random_() % 30);
    end(victim);
    start(victim, victim[0] == 'd' ? Role::decode : Role::prefill);
    for (const auto& each : asked) check(each);
  }
  expect_nothing_held();
}

TEST_P(Serving, ModelsComeAndGo) {
  open();
  start_both();
  const auto state_of = [this](const std::string& id) -> std::optional<ModelState> {
    for (const auto& model : dispatcher_->models()) {
      if (model.id == id) return model.state;
    }
    return std::nullopt;
  };
  const auto wait_for = [&](const std::string& id, std::optional<ModelState> state) {
    const TimePoint limit = monotonic_now() + kLimit;
    while (state_of(id) != state && monotonic_now() < limit) {
      dispatcher_->tick();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(state_of(id), state) << id;
  };
  const auto submit = [this](const std::string& id) {
    return dispatcher_->submit(
        {.model = id, .prompt = {1, 2, 3}, .sampling = {.temperature = 0}, .max_tokens = 4},
        std::make_shared<Collected>());
  };
  EXPECT_FALSE(dispatcher_->add_model({.id = name_of(0), .path = "9"}));
  if (models_ > 2) {
    ASSERT_TRUE(dispatcher_->add_model({.id = "more", .path = "77"}));
    wait_for("more", ModelState::ready);
    const auto got = std::make_shared<Collected>();
    const std::vector<std::int32_t> prompt = {5, 6, 7};
    ASSERT_TRUE(dispatcher_->submit(
        {.model = "more", .prompt = prompt, .sampling = {.temperature = 0}, .max_tokens = 200}, got));
    got->wait_for_tokens(1);
    ASSERT_TRUE(dispatcher_->remove_model("more"));
    EXPECT_EQ(submit("more").error().error.code, ErrorCode::not_found);
    EXPECT_EQ(got->wait(), FinishReason::length);  // what was taken ends as it would
    EXPECT_EQ(got->tokens(), fake_tokens(prompt, 200, {.salt = 77}));
    wait_for("more", std::nullopt);
  }
  ASSERT_TRUE(dispatcher_->add_model({.id = "broken", .path = "broken"}));
  wait_for("broken", ModelState::failed);
  const auto refused = submit("broken");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().error.code, ErrorCode::unsupported);
  EXPECT_GT(refused.error().retry_after, Nanos{});
  EXPECT_NE(refused.error().error.message.find("it is broken"), std::string::npos);
  check(ask(30, 10));
  expect_nothing_held();
}

TEST_P(Serving, AModelThatCannotBeLoadedFailsAlone) {
  open();
  start_both();
  check(ask_model(0, 20, 5));
  cache_.failing = true;
  const auto lost = std::make_shared<Collected>();
  // Not resident with any policy: nobody has asked for it yet, or it was never loaded.
  const std::uint32_t other = models_ - 1;
  ASSERT_TRUE(dispatcher_->submit(
      {.model = name_of(other), .prompt = {4}, .sampling = {.temperature = 0}, .max_tokens = 2}, lost));
  if (GetParam().policy != schedule::PolicyKind::fixed) {
    EXPECT_EQ(lost->wait(), FinishReason::failed);
    EXPECT_NE(lost->error().message.find("the disk is gone"), std::string::npos);
  }
  cache_.failing = false;
  const TimePoint limit = monotonic_now() + kLimit;
  for (;;) {
    const auto again = std::make_shared<Collected>();
    if (dispatcher_->submit(
            {.model = name_of(other), .prompt = {4}, .sampling = {.temperature = 0}, .max_tokens = 2},
            again) &&
        again->wait() == FinishReason::length)
      break;
    ASSERT_LT(monotonic_now(), limit) << "the breaker does not close";
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  check(ask_model(0, 20, 5));
  expect_nothing_held();
}

// Whatever asks for it meanwhile waits, or is told to come again.
TEST_P(Serving, ADamagedImageIsMadeAnewWhileItsRequestsWait) {
  open();
  cache_.damaged = true;
  std::vector<Asked> asked;
  for (std::uint32_t i = 0; i < 12; ++i) asked.push_back(ask_model(i % models_, 50, 20));
  start_both();
  for (const auto& each : asked) check(each);
  EXPECT_GT(cache_.repairs, 0);
  for (const auto& model : dispatcher_->models()) EXPECT_EQ(model.state, ModelState::ready) << model.detail;
  expect_nothing_held();
}

TEST_P(Serving, WhatCannotBeMadeAnewFailsWithTheReasonUntilItCan) {
  open();
  cache_.damaged = true;
  cache_.repairable = false;
  const Asked lost = ask_model(0, 20, 5);
  start_both();
  EXPECT_EQ(lost.got->wait(), FinishReason::failed);
  const auto says = [](const std::string& text) {
    return text.find("damaged") != std::string::npos && text.find("checkpoint is gone") != std::string::npos;
  };
  EXPECT_TRUE(says(lost.got->error().message)) << lost.got->error().message;
  // At once and whenever: it may be tried again meanwhile.
  const auto tries = cache_.repairs + 1;
  for (const TimePoint limit = monotonic_now() + kLimit; cache_.repairs < tries && monotonic_now() < limit;) {
    const auto refused = dispatcher_->submit(
        {.model = name_of(0), .prompt = {4}, .sampling = {.temperature = 0}, .max_tokens = 2},
        std::make_shared<Collected>());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().error.code, ErrorCode::unsupported);
    EXPECT_TRUE(says(refused.error().error.message)) << refused.error().error.message;
    EXPECT_GT(refused.error().retry_after, Nanos{});
    dispatcher_->tick();
  }
  EXPECT_GE(cache_.repairs, tries) << "nobody tries again";
  cache_.repairable = true;
  wait_until_usable(0);
  check(ask_model(0, 20, 5));
  expect_nothing_held();
}

TEST_P(Serving, AnImageThatIsDamagedAgainAndAgainIsGivenUp) {
  open();
  cache_.damaged = cache_.lasting_damage = true;
  const Asked lost = ask_model(0, 20, 5);
  start_both();
  EXPECT_EQ(lost.got->wait(), FinishReason::failed);
  EXPECT_NE(lost.got->error().message.find("is the disk sound"), std::string::npos)
      << lost.got->error().message;
}

TEST_P(Serving, AModelThatDoesNotFitTheCacheFailsAtOnceAndAlone) {
  open();
  start_both();
  check(ask_model(0, 20, 5));
  cache_.budget = 50 << 10;
  ASSERT_TRUE(dispatcher_->add_model({.id = "large", .path = "77"}));
  EXPECT_FALSE(dispatcher_->add_opened_model({.id = "larger", .path = "1"},
                                             std::make_shared<const FakeImage>(FakeModel{.salt = 78})));
  const std::string reason =
      "its image of 68.00 KiB does not fit the model cache of 50.00 KiB: set model_cache to 1MiB or more and "
      "start again";
  const auto failed = [this](const std::string& id) {
    for (const auto& model : dispatcher_->models()) {
      if (model.id == id) return model.state == ModelState::failed ? model.detail : "";
    }
    return std::string("gone");
  };
  const TimePoint limit = monotonic_now() + kLimit;
  while (failed("large").empty() && monotonic_now() < limit) std::this_thread::yield();
  for (const char* id : {"large", "larger"}) {
    EXPECT_EQ(failed(id), reason);
    for (int i = 0; i < 3; ++i) {
      const auto refused =
          dispatcher_->submit({.model = id, .prompt = {4}, .max_tokens = 2}, std::make_shared<Collected>());
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().error.code, ErrorCode::unsupported);
      EXPECT_NE(refused.error().error.message.find(reason), std::string::npos)
          << refused.error().error.message;
    }
  }
  check(ask_model(0, 20, 5));
}

TEST_P(Serving, SaysBeforehandWhatWouldNotFit) {
  open();
  const auto config = std::make_shared<const FakeImage>(fake(0))->config();
  EXPECT_TRUE(dispatcher_->fits(config, kBerth));
  const auto too_large = dispatcher_->fits(config, kBerth + 1);
  ASSERT_FALSE(too_large);
  EXPECT_EQ(too_large.error().code, ErrorCode::out_of_range);
  EXPECT_NE(too_large.error().message.find("set berth_memory to"), std::string::npos);
  cache_.budget = kBerth - 1;
  EXPECT_NE(dispatcher_->fits(config, kBerth).error().message.find("model_cache"), std::string::npos);
  auto wide = config;
  wide.layers *= 1000;
  EXPECT_NE(dispatcher_->fits(wide, 1).error().message.find("KV blocks"), std::string::npos);
}

TEST_P(Serving, WhatIsNoNumberEndsItsRequestWithAnError) {
  open();
  FakeModel broken{.salt = 99, .numbers_until = 30};
  ASSERT_TRUE(dispatcher_->add_opened_model({.id = "broken", .path = "1"},
                                            std::make_shared<const FakeImage>(broken)));
  if (GetParam().policy == schedule::PolicyKind::fixed) {
    ASSERT_TRUE(dispatcher_->remove_model(name_of(1)));
  }
  start_both();
  for (const std::size_t length : {20, 40}) {  // in the middle of the text, and at its beginning
    const auto got = std::make_shared<Collected>();
    const auto asked = prompt(length);
    ASSERT_TRUE(dispatcher_->submit(
        {.model = "broken", .prompt = asked, .sampling = {.temperature = 0}, .max_tokens = 50}, got));
    EXPECT_EQ(got->wait(), FinishReason::failed);
    EXPECT_EQ(got->error().code, ErrorCode::corrupt);
    EXPECT_NE(got->error().message.find("no numbers"), std::string::npos) << got->error().message;
    // The first token comes of the prompt alone.
    const std::uint32_t sound = length < 30 ? 31 - static_cast<std::uint32_t>(length) : 0;
    EXPECT_EQ(got->tokens(), fake_tokens(asked, sound, {.salt = 99}));
  }
  check(ask_model(0, 20, 5));
  expect_nothing_held();
}

TEST_P(Serving, TheCatalogueIsReplacedAsAWhole) {
  open();
  start_both();
  auto wanted = dispatcher_->settings();
  wanted.front().weight = 3;
  const std::string gone = wanted.back().id;
  wanted.pop_back();
  auto bad = wanted;
  bad.push_back(bad.front());
  EXPECT_FALSE(dispatcher_->replace(bad));
  EXPECT_EQ(dispatcher_->settings().size(), models_);
  const auto change = dispatcher_->replace(wanted);
  ASSERT_TRUE(change) << change.error().message;
  EXPECT_EQ(change->changed, std::vector<std::string>{name_of(0)});
  EXPECT_EQ(change->removed, std::vector<std::string>{gone});
  EXPECT_EQ(dispatcher_->settings(), wanted);
  check(ask_model(0, 20, 5));
  EXPECT_TRUE(dispatcher_->pin_model(name_of(0), true));
  EXPECT_EQ(dispatcher_->pin_model("nobody", true).error().code, ErrorCode::not_found);
  // One berth stays free, whichever way the others are to be taken.
  if (models_ > 2) {  // else the other one has just been removed
    EXPECT_EQ(dispatcher_->pin_model(name_of(1), true).error().code, ErrorCode::exhausted);
  }
  EXPECT_EQ(dispatcher_->add_model({.id = "late", .path = "9", .pinned = true}).error().code,
            ErrorCode::exhausted);
  check(ask_model(0, 20, 5));
  // Another checkpoint under the same name.
  auto moved = dispatcher_->settings();
  moved.back().path = "2";
  const auto move = dispatcher_->replace(moved);
  ASSERT_TRUE(move) << move.error().message;
  EXPECT_EQ(move->changed, std::vector<std::string>{moved.back().id});
  EXPECT_TRUE(move->added.empty() && move->removed.empty());
}

TEST_P(Serving, AModelThatIsRemovedWhileItIsLoadedLeavesItsBerth) {
  open();
  start_both();
  for (const std::uint32_t model : {0u, 1u}) check(ask_model(model, 20, 5));
  for (int round = 0; round < 3; ++round) {
    const std::string id = "passing-" + std::to_string(round);
    if (GetParam().policy == schedule::PolicyKind::fixed) break;  // all berths are taken for good
    ASSERT_TRUE(dispatcher_->add_opened_model(
        {.id = id, .path = "1"}, std::make_shared<const FakeImage>(FakeModel{.salt = 50u + round})));
    cache_.hold(true);
    const auto got = std::make_shared<Collected>();
    const auto request = dispatcher_->submit({.model = id, .prompt = prompt(20), .max_tokens = 5}, got);
    ASSERT_TRUE(request);
    dispatcher_->cancel(*request);
    EXPECT_EQ(got->wait(), FinishReason::cancelled);
    ASSERT_TRUE(dispatcher_->remove_model(id));
    cache_.hold(false);
    const TimePoint limit = monotonic_now() + kLimit;
    const auto there = [&] {
      const auto models = dispatcher_->models();
      return std::ranges::any_of(models, [&](const auto& model) { return model.id == id; });
    };
    while (there() && monotonic_now() < limit) {
      dispatcher_->tick();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    EXPECT_FALSE(there());
  }
  for (std::uint32_t model = 0; model < models_; ++model) check(ask_model(model, 20, 5));
  expect_nothing_held();
}

TEST_P(Serving, ARequestThatItsInstancesDoNotSurviveIsForgottenByAll) {
  open();
  const FakeModel slow{.salt = 60, .readings = 300000};
  ASSERT_TRUE(
      dispatcher_->add_opened_model({.id = "slow", .path = "1"}, std::make_shared<const FakeImage>(slow)));
  if (GetParam().policy == schedule::PolicyKind::fixed) {
    ASSERT_TRUE(dispatcher_->remove_model(name_of(1)));
  }
  start_both();
  const auto got = std::make_shared<Collected>();
  ASSERT_TRUE(dispatcher_->submit({.model = "slow", .prompt = prompt(1500), .max_tokens = 5}, got));
  const TimePoint limit = monotonic_now() + kLimit;
  while (!got->ended() && monotonic_now() < limit) {
    while (sum_of("pool_requests_placed") == 0 && !got->ended() && monotonic_now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (got->ended()) break;
    end("prefill-0");
    start("prefill-0", Role::prefill);
  }
  EXPECT_EQ(got->wait(), FinishReason::failed);
  check(ask_model(0, 20, 5));
  ASSERT_TRUE(dispatcher_->remove_model("slow"));
  const auto there = [&] {
    const auto models = dispatcher_->models();
    return std::ranges::any_of(models, [](const auto& model) { return model.id == "slow"; });
  };
  while (there() && monotonic_now() < limit) {
    dispatcher_->tick();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_FALSE(there()) << "the policy knows a request of it that nobody else knows";
  expect_nothing_held();
}

TEST_P(Serving, AChangedContextCounts) {
  open();
  auto wanted = dispatcher_->settings();
  const auto context = [this] { return dispatcher_->models().front().context; };
  const auto longest = context();
  wanted.front().context = 100;
  ASSERT_TRUE(dispatcher_->replace(wanted));
  EXPECT_EQ(context(), 100u);
  EXPECT_EQ(dispatcher_
                ->submit({.model = "fake-0", .prompt = {1}, .max_tokens = 100}, std::make_shared<Collected>())
                .error()
                .error.code,
            ErrorCode::out_of_range);
  wanted.front().context = 0;
  ASSERT_TRUE(dispatcher_->replace(wanted));
  EXPECT_EQ(context(), longest);
}

TEST_P(Serving, BadRequestsAreRefused) {
  open();
  const auto submit = [this](GenerationRequest request) {
    return dispatcher_->submit(std::move(request), std::make_shared<Collected>()).error().error.code;
  };
  EXPECT_EQ(submit({.model = "other", .prompt = {1}, .max_tokens = 1}), ErrorCode::not_found);
  EXPECT_EQ(submit({.model = "fake-0", .prompt = {}, .max_tokens = 1}), ErrorCode::invalid);
  EXPECT_EQ(submit({.model = "fake-0", .prompt = {1}, .max_tokens = 0}), ErrorCode::invalid);
  EXPECT_EQ(submit({.model = "fake-0", .prompt = {1}, .max_tokens = 2048}), ErrorCode::out_of_range);
}

TEST_P(Serving, AFullQueuePushesBack) {
  open();
  for (int i = 0; i < 1024; ++i) ask(1, 1);
  const auto refused =
      dispatcher_->submit({.model = "fake-0", .prompt = {1}, .max_tokens = 1}, std::make_shared<Collected>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().error.code, ErrorCode::exhausted);
}

INSTANTIATE_TEST_SUITE_P(
    All, Serving,
    testing::Values(Setting{"shm", schedule::PolicyKind::slack}, Setting{"shm", schedule::PolicyKind::quota},
                    Setting{"shm", schedule::PolicyKind::request},
                    Setting{"shm", schedule::PolicyKind::fixed}, Setting{"net", schedule::PolicyKind::slack}),
    [](const auto& setting) {
      return setting.param.fabric + "_" + std::string(schedule::to_string(setting.param.policy));
    });

}  // namespace
}  // namespace switchyard::pool
