// Orders to instances over real engines, with models that notice every wrong byte of KV and weights.
#include <gtest/gtest.h>

#include "pool/ordering.h"

namespace switchyard::pool {
namespace {

using namespace std::chrono_literals;

// Its steps take longer than orders take to arrive.
constexpr FakeModel kSlow{.weight_bytes = 4 << 20, .readings = 100};

class WorkerTest : public Ordering {
 protected:
  // An instance with one model in a berth.
  ModelId ready(const std::string& name, const FakeModel& fake = {}) {
    start(name);
    const ModelId model = add_model(fake);
    EXPECT_TRUE(load(name, model).ready);
    return model;
  }
  // Has `to` expect the KV of a prompt that `from` is to compute or has.
  kv::Destination expected(const std::string& from, const std::string& to, const Asked& asked,
                           std::uint32_t tokens, std::uint32_t limit_ms = 60000) {
    introduce(to, asked);
    order(to, Expect{.ticket = asked.ticket,
                     .tokens = tokens,
                     .from = running_[from].address.serialize(),
                     .limit_ms = limit_ms});
    return expect_of<Expecting>(to, asked.ticket).destination;
  }
  std::vector<std::byte> address(const std::string& name) { return running_[name].address.serialize(); }
};

TEST_F(WorkerTest, SaysWhatItHas) {
  start("one", 1 << 20);
  const InstanceHello& hello = running_["one"].hello;
  EXPECT_EQ(hello.kv_bytes, 1u << 20);
  EXPECT_EQ(hello.slab_bytes, 64u << 10);
  EXPECT_EQ(hello.berths, 2u);
  EXPECT_EQ(hello.berth_bytes, 10u << 20);
}

TEST_F(WorkerTest, PromptsOfAllLengthsStayAndAreDecoded) {
  const ModelId model = ready("one");
  std::vector<Asked> asked;
  for (const std::size_t length : {1, 2, 15, 16, 17, 63, 64, 65, 128, 129, 500}) {
    asked.push_back(ask(model, length, 1 + length % 7 * 9));
  }
  std::vector<Asked*> all;
  std::uint64_t tokens = 0;
  for (Asked& each : asked) {
    all.push_back(&each);
    tokens += each.prompt.size();
  }
  const JobEnded prefilled = prefill_stay("one", all);
  EXPECT_EQ(prefilled.tokens, tokens);
  EXPECT_EQ(prefilled.reused, 0u);
  std::erase_if(all, [](const Asked* each) { return each->outcome != RowOutcome::running; });
  for (const Asked* each : all) EXPECT_EQ(each->got.size(), 1u);
  const JobEnded decoded = decode("one", all, 60s);
  EXPECT_GT(decoded.rows, 0u);
  EXPECT_GE(decoded.context, decoded.rows);
  for (const Asked& each : asked) check(each);
  expect_nothing_held();
}

TEST_F(WorkerTest, ATurnOfNoTimeIsOneStep) {
  const ModelId model = ready("one");
  Asked asked = ask(model, 20, 5);
  prefill_stay("one", {&asked});
  for (std::size_t step = 2; step <= 5; ++step) {
    EXPECT_EQ(decode("one", {&asked}, Nanos(0)).steps, 1u);
    EXPECT_EQ(asked.got.size(), step);
  }
  check(asked);
}

TEST_F(WorkerTest, KvGoesToAPeerWhileItIsComputed) {
  const ModelId model = ready("left");
  start("right");
  ASSERT_TRUE(load("right", model).ready);
  for (const std::size_t length : {1, 16, 64, 65, 300}) {
    Asked asked = ask(model, length, 30);
    const auto destination = expected("left", "right", asked, static_cast<std::uint32_t>(length));
    introduce("left", asked);
    prefill("left",
            {{.ticket = asked.ticket,
              .target = KvTarget::peer,
              .peer = address("right"),
              .destination = destination}},
            {&asked});
    expect_of<KvHere>("right", asked.ticket);
    decode("right", {&asked}, 60s, asked.got);
    check(asked);
  }
  expect_nothing_held();
}

TEST_F(WorkerTest, ARequestThatEndsWithItsFirstTokenStillArrives) {
  const ModelId model = ready("left");
  start("right");
  Asked asked = ask(model, 100, 1);
  const auto destination = expected("left", "right", asked, 100);
  introduce("left", asked);
  prefill("left",
          {{.ticket = asked.ticket,
            .target = KvTarget::peer,
            .peer = address("right"),
            .destination = destination}},
          {&asked});
  check(asked);
  expect_of<KvHere>("right", asked.ticket);
  order("right", Release{.ticket = asked.ticket, .writer_done = true});
  expect_of<Released>("right", asked.ticket);
  expect_nothing_held();
}

TEST_F(WorkerTest, KvGoesToHostMemoryAndToAnotherInstance) {
  const ModelId model = ready("left");
  start("right");
  ASSERT_TRUE(load("right", model).ready);
  for (const std::size_t length : {1, 16, 33, 300}) {
    Asked asked = ask(model, length, 40);
    introduce("left", asked);
    const auto first = host_blocks(model, static_cast<std::uint32_t>(length));
    prefill("left", {{.ticket = asked.ticket, .target = KvTarget::host, .host_blocks = first}}, {&asked});
    EXPECT_GT(expect_of<KvMoved>("left", asked.ticket).bytes, 0u);
    introduce("right", asked);
    order("right", MoveIn{.ticket = asked.ticket, .host_blocks = first});
    expect_of<KvMoved>("right", asked.ticket);
    decode("right", {&asked}, 1us);
    ASSERT_EQ(asked.outcome, RowOutcome::running);
    // And back, in the middle of its text, without waiting between the orders.
    const auto second = host_blocks(model, kv_tokens(asked));
    order("right", MoveOut{.ticket = asked.ticket, .host_blocks = second});
    expect_of<KvMoved>("right", asked.ticket);
    introduce("left", asked);
    order("left", MoveIn{.ticket = asked.ticket, .host_blocks = second});
    decode("left", {&asked}, 60s);
    expect_of<KvMoved>("left", asked.ticket);
    check(asked);
  }
  expect_nothing_held();
}

TEST_F(WorkerTest, KvIsPushedInTheMiddleOfAText) {
  const ModelId model = ready("left");
  start("right");
  ASSERT_TRUE(load("right", model).ready);
  Asked asked = ask(model, 100, 50);
  prefill_stay("left", {&asked});
  std::string here = "left";
  std::string there = "right";
  for (int round = 0; round < 6; ++round) {
    decode(here, {&asked}, 1us);
    ASSERT_EQ(asked.outcome, RowOutcome::running);
    // It comes back to an instance that may not have heard yet that it is gone.
    const auto destination = expected(here, there, asked, kv_tokens(asked));
    order(here, PushKv{.ticket = asked.ticket, .peer = address(there), .destination = destination});
    expect_of<KvHere>(there, asked.ticket);
    std::swap(here, there);
  }
  decode(here, {&asked}, 60s);
  check(asked);
  expect_nothing_held();
}

TEST_F(WorkerTest, RowsJoinAndTheJobStops) {
  const ModelId model = ready("one", kSlow);
  Asked first = ask(model, 20, 600);
  Asked second = ask(model, 30, 200);
  prefill_stay("one", {&first, &second});
  const std::uint64_t job = next_serial_++;
  order("one", RunDecode{.job = job, .model = model, .rows = {{.ticket = first.ticket}}, .limit = 60s});
  const auto of_job = [job](const auto& each) { return each.job == job; };
  take(*wait<Tokens>("one", of_job), {&first, &second});
  order("one", Join{.job = job, .row = {.ticket = second.ticket}});
  while (second.got.size() < 5) take(*wait<Tokens>("one", of_job), {&first, &second});
  order("one", StopJob{.job = job});
  job_limit_ = monotonic_now() + kOrderLimit;
  finish_job("one", job, {&first, &second});
  ASSERT_EQ(first.outcome, RowOutcome::running);
  // Too late: nothing happens, and the request is as it was.
  order("one", Join{.job = job, .row = {.ticket = second.ticket}});
  decode("one", {&first, &second}, 60s);
  check(first);
  check(second);
  expect_nothing_held();
}

TEST_F(WorkerTest, AReleasedRowLeavesItsJob) {
  const ModelId model = ready("one");
  Asked first = ask(model, 20, 1500);
  Asked second = ask(model, 30, 1500);
  prefill_stay("one", {&first, &second});
  const std::uint64_t job = next_serial_++;
  order("one", RunDecode{.job = job,
                         .model = model,
                         .rows = {{.ticket = first.ticket}, {.ticket = second.ticket}},
                         .limit = 60s});
  ASSERT_TRUE(wait<Tokens>("one", [job](const auto& each) { return each.job == job; }));
  order("one", Release{.ticket = first.ticket});
  expect_of<Released>("one", first.ticket);
  order("one", Release{.ticket = second.ticket});
  expect_of<Released>("one", second.ticket);
  EXPECT_TRUE(wait<JobEnded>("one", [job](const auto& each) { return each.job == job; }));
  expect_nothing_held();
}

TEST_F(WorkerTest, WhatIsNotKnownIsLostOrReleased) {
  const ModelId model = ready("one");
  Asked asked = ask(model, 20, 5);
  order("one", Release{.ticket = asked.ticket});
  expect_of<Released>("one", asked.ticket);
  decode("one", {&asked}, 60s);
  expect_of<KvLost>("one", asked.ticket);
  prefill("one", {{.ticket = asked.ticket}}, {&asked});
  expect_of<KvLost>("one", asked.ticket);
  order("one", MoveOut{.ticket = asked.ticket});
  expect_of<KvLost>("one", asked.ticket);
  order("one", Expect{.ticket = asked.ticket});
  expect_of<KvLost>("one", asked.ticket);
  // Without KV there is nothing to decode, or to move.
  introduce("one", asked);
  order("one", MoveOut{.ticket = asked.ticket, .host_blocks = {0}});
  expect_of<KvLost>("one", asked.ticket);
  // A model that is nowhere.
  Asked other = ask(model, 20, 5);
  other.model = 77;
  order("one", Introduce{.ticket = other.ticket, .model = 77, .prompt = {1}, .max_tokens = 1});
  prefill("one", {{.ticket = other.ticket}}, {&other});
  EXPECT_NE(expect_of<KvLost>("one", other.ticket).why.message.find("not loaded"), std::string::npos);
  expect_nothing_held();
}

TEST_F(WorkerTest, WhatCannotBeComputedFailsWithTheReason) {
  const ModelId model = ready("one");
  const auto outcome = [&](auto change) {
    Asked asked = ask(model, 20, 5);
    Introduce what{.ticket = asked.ticket,
                   .model = model,
                   .shape = fake_shape(fakes_[model]),
                   .prompt = asked.prompt,
                   .sampling = {.temperature = 0},
                   .max_tokens = 5};
    change(what);
    order("one", what);
    prefill("one", {{.ticket = asked.ticket}}, {&asked});
    return asked.outcome;
  };
  EXPECT_EQ(outcome([](Introduce&) {}), RowOutcome::running);
  EXPECT_EQ(outcome([](Introduce& what) { what.prompt[3] = kFakeVocab; }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.prompt[3] = -1; }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.prompt.clear(); }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.prompt.resize(3000, 1); }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.max_tokens = 2040; }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.max_tokens = 0; }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.sampling.top_p = -1; }), RowOutcome::failed);
  EXPECT_EQ(outcome([](Introduce& what) { what.shape.layers = 4; }), RowOutcome::failed);
}

TEST_F(WorkerTest, TwoModelsOfDifferentShapesTakeTurns) {
  start("one", 512 << 10);
  std::vector<ModelId> models;
  for (std::uint64_t salt = 1; salt <= 3; ++salt) {
    models.push_back(add_model({.layers = 1 + static_cast<std::uint32_t>(salt) * 2,
                                .head_dim = static_cast<std::uint32_t>(8 * salt),
                                .salt = salt,
                                .weight_bytes = (9 << 20) + salt * kFakePage}));
  }
  std::vector<Asked> asked;
  for (int i = 0; i < 12; ++i) asked.push_back(ask(models[i % 3], 1 + random_() % 150, 60));
  std::optional<ModelId> before;
  ModelId last = schedule::kNoModel;
  for (int turn = 0; turn < 12; ++turn) {
    const ModelId model = models[turn % 3];
    const Loaded loaded = load("one", model, last);
    ASSERT_TRUE(loaded.ready) << loaded.error.message;
    EXPECT_GT(loaded.bytes, 9u << 20);
    last = before.value_or(schedule::kNoModel);
    before = model;
    std::vector<Asked*> fresh;
    std::vector<Asked*> rows;
    for (Asked& each : asked) {
      if (each.model != model || each.outcome != RowOutcome::running) continue;
      if (each.got.empty()) fresh.push_back(&each);
      rows.push_back(&each);
    }
    if (!fresh.empty()) prefill_stay("one", fresh);
    if (!rows.empty()) decode("one", rows, turn < 9 ? Nanos(1000) : Nanos(60s));
  }
  for (const Asked& each : asked) check(each);
  expect_nothing_held();
}

TEST_F(WorkerTest, LoadsThatCannotBeSayWhy) {
  const ModelId model = ready("one", kSlow);
  SharedMemory vanished = fake_shared_image();
  const SharedMemoryName name = vanished.name();
  vanished = SharedMemory();
  const auto try_load = [&](LoadModel load) {
    load.serial = next_serial_++;
    order("one", load);
    return *wait<Loaded>("one", [&load](const Loaded& each) { return each.serial == load.serial; });
  };
  const Loaded gone = try_load({.model = 50, .image = name});
  EXPECT_FALSE(gone.ready);
  EXPECT_EQ(gone.error.code, ErrorCode::not_found);
  const ModelId large = add_model({.weight_bytes = 11 << 20});
  const Loaded too_large = try_load({.model = large, .image = images_[large].name()});
  EXPECT_FALSE(too_large.ready);
  EXPECT_EQ(too_large.error.code, ErrorCode::out_of_range);
  // None of them keeps the berth.
  const ModelId second = add_model({.salt = 2});
  EXPECT_TRUE(try_load({.model = second, .image = images_[second].name()}).ready);
  const ModelId third = add_model({.salt = 3});
  const Loaded full = try_load({.model = third, .image = images_[third].name()});
  EXPECT_FALSE(full.ready);
  EXPECT_EQ(full.error.code, ErrorCode::exhausted);
  // While it computes, a model does not leave.
  Asked asked = ask(model, 20, 600);
  prefill_stay("one", {&asked});
  const std::uint64_t job = next_serial_++;
  order("one", RunDecode{.job = job, .model = model, .rows = {{.ticket = asked.ticket}}, .limit = 60s});
  order("one", EvictModel{.model = model});
  EXPECT_FALSE(try_load({.model = third, .image = images_[third].name()}).ready);
  order("one", EvictModel{.model = second});
  EXPECT_TRUE(try_load({.model = third, .image = images_[third].name()}).ready);
  job_limit_ = monotonic_now() + kOrderLimit;
  finish_job("one", job, {&asked});
  check(asked);
}

TEST_F(WorkerTest, AJobWaitsForItsModelAndAStopEndsIt) {
  start("one");
  const ModelId model = add_model({.weight_bytes = 9 << 20});
  Asked asked = ask(model, 50, 5);
  introduce("one", asked);
  // Without waiting for Loaded.
  order("one", LoadModel{.serial = 1, .model = model, .image = images_[model].name()});
  prefill("one", {{.ticket = asked.ticket}}, {&asked});
  decode("one", {&asked}, 60s);
  check(asked);
}

TEST_F(WorkerTest, BlocksOfADeadWriterComeBackOnlyWhenItIsDead) {
  start("right");
  start("left");
  const ModelId model = add_model({});
  Asked waiting = ask(model, 200, 5);
  Asked released = ask(model, 200, 5);
  Asked told = ask(model, 200, 5);
  for (const Asked* each : {&waiting, &released, &told}) expected("left", "right", *each, 200);
  // The dispatcher says that this one's writer has stopped; that one's has not.
  order("right", Release{.ticket = told.ticket, .writer_done = true});
  expect_of<Released>("right", told.ticket);
  order("right", Release{.ticket = released.ticket});
  order("right", Release{.ticket = {9999, 1}});
  expect_of<Released>("right", {9999, 1});
  EXPECT_FALSE(wait<Released>(
      "right", [](const auto&) { return true; }, Nanos(0)));
  end("left");
  expect_of<Released>("right", released.ticket);
  EXPECT_EQ(expect_of<KvLost>("right", waiting.ticket).why.code, ErrorCode::peer_lost);
  expect_nothing_held();
}

TEST_F(WorkerTest, AWriterThatNeverWasIsNotWaitedFor) {
  start("right");
  start("left");
  const PeerAddress gone = running_["left"].address;
  end("left");
  const ModelId model = add_model({});
  const Asked asked = ask(model, 200, 5);
  introduce("right", asked);
  order("right", Expect{.ticket = asked.ticket, .tokens = 200, .from = gone.serialize(), .limit_ms = 60000});
  expect_of<KvLost>("right", asked.ticket);
  expect_nothing_held();
}

TEST_F(WorkerTest, WhatComesTooLateIsLostWhenTheWriterHasStopped) {
  start("right");
  start("left");
  const ModelId model = add_model({});
  const Asked asked = ask(model, 200, 5);
  expected("left", "right", asked, 200, 1);
  order("right", Release{.ticket = asked.ticket});
  order("right", Release{.ticket = asked.ticket, .writer_done = true});
  expect_of<Released>("right", asked.ticket);
  expect_nothing_held();
}

TEST_F(WorkerTest, APushToADeadPeerIsLost) {
  const ModelId model = ready("left");
  start("right");
  Asked asked = ask(model, 2000, 5);
  const auto destination = expected("left", "right", asked, 2000);
  introduce("left", asked);
  const std::uint64_t job = next_serial_++;
  const auto peer = address("right");
  order(
      "left",
      RunPrefill{
          .job = job,
          .model = model,
          .prompts = {
              {.ticket = asked.ticket, .target = KvTarget::peer, .peer = peer, .destination = destination}}});
  end("right");
  // It may have landed before; then nothing is lost.
  job_limit_ = monotonic_now() + kOrderLimit;
  finish_job("left", job, {&asked});
  expect_nothing_held();
}

TEST_F(WorkerTest, PromptsThatBeginAlikeAreNotComputedTwice) {
  const ModelId model = ready("one");
  const ModelId other = add_model({.salt = 2});
  ASSERT_TRUE(load("one", other).ready);
  start("right");
  ASSERT_TRUE(load("right", model).ready);
  Asked first = ask(model, 200, 30);
  EXPECT_EQ(prefill_stay("one", {&first}).reused, 0u);
  decode("one", {&first}, 60s);
  check(first);
  const auto like_first = [&](ModelId of, std::size_t same, std::size_t length) {
    Asked asked = ask(of, length, 30);
    std::copy_n(first.prompt.begin(), same, asked.prompt.begin());
    return asked;
  };
  // All of it, but for the last token; a part; another model.
  Asked same = like_first(model, 200, 200);
  Asked part = like_first(model, 100, 180);
  Asked foreign = like_first(other, 200, 200);
  EXPECT_EQ(prefill_stay("one", {&same}).reused, 192u);
  EXPECT_EQ(prefill_stay("one", {&part}).reused, 96u);
  EXPECT_EQ(prefill_stay("one", {&foreign}).reused, 0u);
  decode("one", {&same, &part}, 60s);
  decode("one", {&foreign}, 60s);
  check(same);
  check(part);
  check(foreign);
  // What is reused goes to a peer and to host memory as well.
  Asked pushed = like_first(model, 150, 190);
  const auto destination = expected("one", "right", pushed, 190);
  introduce("one", pushed);
  EXPECT_EQ(prefill("one",
                    {{.ticket = pushed.ticket,
                      .target = KvTarget::peer,
                      .peer = address("right"),
                      .destination = destination}},
                    {&pushed})
                .reused,
            144u);
  expect_of<KvHere>("right", pushed.ticket);
  decode("right", {&pushed}, 60s, pushed.got);
  check(pushed);
  Asked moved = like_first(model, 150, 190);
  introduce("one", moved);
  const auto blocks = host_blocks(model, 190);
  EXPECT_EQ(
      prefill("one", {{.ticket = moved.ticket, .target = KvTarget::host, .host_blocks = blocks}}, {&moved})
          .reused,
      144u);
  expect_of<KvMoved>("one", moved.ticket);
  introduce("right", moved);
  order("right", MoveIn{.ticket = moved.ticket, .host_blocks = blocks});
  decode("right", {&moved}, 60s);
  check(moved);
  expect_nothing_held();
}

TEST_F(WorkerTest, WhatIsKeptOfPromptsMakesRoom) {
  start("one", 256 << 10);  // 128 blocks of the first shape
  const ModelId model = add_model({});
  const ModelId other = add_model({.layers = 5, .head_dim = 16, .salt = 2});
  ASSERT_TRUE(load("one", model).ready);
  ASSERT_TRUE(load("one", other).ready);
  for (int round = 0; round < 6; ++round) {
    Asked small = ask(model, 1100, 20);
    prefill_stay("one", {&small});
    decode("one", {&small}, 60s);
    check(small);
    Asked large = ask(other, 600, 20);
    prefill_stay("one", {&large});
    decode("one", {&large}, 60s);
    check(large);
  }
  expect_nothing_held();
}

TEST_F(WorkerTest, OrdersWaitForBlocks) {
  start("one", 256 << 10);  // 128 blocks
  const ModelId model = add_model({});
  ASSERT_TRUE(load("one", model).ready);
  Asked first = ask(model, 1200, 5);
  Asked second = ask(model, 1200, 5);
  prefill_stay("one", {&first});
  introduce("one", second);
  const std::uint64_t job = next_serial_++;
  order("one", RunPrefill{.job = job, .model = model, .prompts = {{.ticket = second.ticket}}});
  order("one", Release{.ticket = first.ticket});
  expect_of<Released>("one", first.ticket);
  job_limit_ = monotonic_now() + kOrderLimit;
  finish_job("one", job, {&second});
  decode("one", {&second}, 60s);
  check(second);
  expect_nothing_held();
}

}  // namespace
}  // namespace switchyard::pool
