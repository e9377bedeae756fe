// Policies by hand: single events and the actions that answer them.
#include "schedule/policy.h"

#include <gtest/gtest.h>

namespace switchyard::schedule {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FlatCosts : public Costs {
 public:
  Nanos prefill(ModelId, InstanceId, std::uint64_t tokens) const override {
    return milliseconds(10) + Nanos(tokens * 20'000);
  }
  Nanos step(ModelId, InstanceId, std::uint32_t, std::uint64_t) const override { return milliseconds(10); }
  Nanos load(ModelId, InstanceId) const override { return milliseconds(400); }
  Nanos activate(ModelId, InstanceId) const override { return milliseconds(5); }
};

template <class T>
std::vector<T> all(const Actions& actions) {
  std::vector<T> found;
  for (const Action& action : actions) {
    if (const T* one = std::get_if<T>(&action)) found.push_back(*one);
  }
  return found;
}

class PolicyTest : public ::testing::TestWithParam<PolicyKind> {
 protected:
  static constexpr std::uint64_t kBlock = 1000;

  void SetUp() override { start({}); }

  void start(const PolicyOptions& options) {
    auto made = make_policy(GetParam(), options, costs_);
    ASSERT_TRUE(made) << made.error().message;
    policy_ = *std::move(made);
  }
  void add_models(ModelId count) {
    for (ModelId id = 0; id < count; ++id) {
      ASSERT_TRUE(
          policy_->add_model(id, {.name = "m", .weight_bytes = 100, .kv_block_bytes = kBlock}, now(), out_));
    }
  }
  void up(InstanceId id, Role role, std::uint64_t kv_blocks = 1000) {
    const auto status = policy_->instance_up(
        id, {.role = role, .kv_bytes = kv_blocks * kBlock, .berths = 2, .berth_bytes = 100}, now(), out_);
    ASSERT_TRUE(status) << status.error().message;
  }
  void arrive(RequestId id, ModelId model, std::uint32_t tokens = 100) {
    policy_->arrived(
        {.id = id, .model = model, .prompt_tokens = tokens, .max_new_tokens = 50, .arrival = now()}, now(),
        out_);
  }
  template <class T>
  std::vector<T> take() {
    auto found = all<T>(out_);
    std::erase_if(out_, [](const Action& action) { return std::holds_alternative<T>(action); });
    return found;
  }
  TimePoint now() const { return TimePoint(seconds(1) + clock_); }

  FlatCosts costs_;
  std::unique_ptr<Policy> policy_;
  Actions out_;
  Nanos clock_{};
};

TEST_P(PolicyTest, TakesARequestFromArrivalToItsLastToken) {
  up(0, Role::prefill);
  up(1, Role::decode);
  add_models(1);
  take<Load>();  // a policy may load before it is asked to
  arrive(5, 0);
  ASSERT_EQ(take<Admit>().size(), 1u);
  policy_->loaded(0, 0, now(), out_);
  if (all<RunPrefill>(out_).empty()) {
    for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  }
  const auto prefill = take<RunPrefill>();
  ASSERT_EQ(prefill.size(), 1u);
  EXPECT_EQ(prefill[0].instance, 0u);
  ASSERT_EQ(prefill[0].prompts.size(), 1u);
  EXPECT_EQ(prefill[0].prompts[0].tokens, 100u);
  EXPECT_EQ(prefill[0].prompts[0].home, 1u);
  EXPECT_EQ(prefill[0].prompts[0].to, 1u);
  EXPECT_EQ(policy_->view().kv_bytes[0], policy_->view().kv_bytes[1]);

  clock_ += milliseconds(12);
  policy_->prefilled(0, std::vector<Progress>{{5, 1, false}}, now(), out_);
  policy_->kv_arrived(5, now(), out_);
  EXPECT_EQ(policy_->view().kv_bytes[0], 0u);
  policy_->loaded(1, 0, now(), out_);
  for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  const auto turn = take<RunDecode>();
  ASSERT_EQ(turn.size(), 1u);
  EXPECT_EQ(turn[0].instance, 1u);
  EXPECT_EQ(turn[0].rows, std::vector<RequestId>{5});
  policy_->stepped(1, std::vector<Progress>{{5, 1, true}}, now(), out_);
  policy_->turn_ended(1, now(), out_);
  EXPECT_EQ(policy_->view().requests, 0u);
  EXPECT_EQ(policy_->view().kv_bytes[1], 0u);
}

// Its home goes, and then its KV: it waits once for the next instance, not twice.
TEST_P(PolicyTest, KvThatIsLostWhileNobodyCanDecodeIsPrefilledOnce) {
  up(0, Role::prefill);
  up(1, Role::decode);
  add_models(1);
  arrive(5, 0);
  for (int i = 0; i < 4; ++i) {
    for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  }
  ASSERT_EQ(take<RunPrefill>().size(), 1u);
  policy_->instance_down(1, now(), out_);
  policy_->prefilled(0, std::vector<Progress>{{5, 1, false}}, now(), out_);
  policy_->kv_lost(5, now(), out_);
  out_.clear();
  up(2, Role::decode);
  for (int i = 0; i < 4; ++i) {
    for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  }
  const auto again = take<RunPrefill>();
  ASSERT_EQ(again.size(), 1u);
  ASSERT_EQ(again[0].prompts.size(), 1u);
  EXPECT_EQ(again[0].prompts[0].tokens, 101u);
  EXPECT_EQ(again[0].prompts[0].home, 2u);
}

TEST_P(PolicyTest, RefusesWhatCannotBe) {
  arrive(1, 0);
  EXPECT_EQ(take<Shed>().at(0).reason, ShedReason::no_instance);
  up(0, Role::unified, 20);
  add_models(1);
  arrive(2, 0, 1000);
  const auto shed = take<Shed>();
  ASSERT_EQ(shed.size(), 1u);
  EXPECT_EQ(shed[0].reason, ShedReason::too_large);
  EXPECT_EQ(shed[0].retry_after, Nanos{});
  EXPECT_FALSE(policy_->add_model(0, {.name = "again", .weight_bytes = 1, .kv_block_bytes = 1}, now(), out_));
  EXPECT_FALSE(
      policy_->add_model(kMaxId, {.name = "far", .weight_bytes = 1, .kv_block_bytes = 1}, now(), out_));
  EXPECT_FALSE(policy_->add_model(1, {.name = "no KV", .weight_bytes = 1}, now(), out_));
  EXPECT_FALSE(policy_->instance_up(0, {.kv_bytes = 1, .berths = 2, .berth_bytes = 1}, now(), out_));
  EXPECT_FALSE(policy_->instance_up(1, {.kv_bytes = 0, .berths = 2, .berth_bytes = 1}, now(), out_));
  // News of things that are not there changes nothing.
  policy_->loaded(9, 0, now(), out_);
  policy_->stepped(9, {}, now(), out_);
  policy_->prefilled(0, {}, now(), out_);
  policy_->kv_arrived(77, now(), out_);
  policy_->cancelled(77, now(), out_);
  policy_->instance_down(9, now(), out_);
}

TEST_P(PolicyTest, WithoutOneOfTheRolesRequestsMayComeAgain) {
  add_models(1);
  for (const auto& [id, role] : {std::pair(0u, Role::prefill), std::pair(1u, Role::decode)}) {
    up(id, role);
    arrive(1, 0);
    const auto shed = take<Shed>();
    ASSERT_EQ(shed.size(), 1u);
    EXPECT_EQ(shed[0].reason, ShedReason::no_instance);
    EXPECT_GT(shed[0].retry_after, Nanos{});
    policy_->instance_down(id, now(), out_);
    out_.clear();
  }
}

TEST_P(PolicyTest, ShedsWhatWouldWaitTooLongForItsPrompt) {
  start({.admission = {.shed_overload = true}});
  up(0, Role::prefill, 10000);
  up(1, Role::decode, 10000);
  add_models(1);
  // 12 ms each, and a few more tokens that may be late.
  std::vector<Shed> shed;
  for (RequestId request = 1; shed.empty() && request < 5000; ++request) {
    arrive(request, 0);
    shed = take<Shed>();
  }
  ASSERT_EQ(shed.size(), 1u);
  EXPECT_EQ(shed[0].reason, ShedReason::overload);
  EXPECT_GT(shed[0].request, 100u);
  EXPECT_GT(shed[0].retry_after, Nanos{});
}

TEST_P(PolicyTest, OnlyFixedPlacesRunOut) {
  up(0, Role::unified);
  add_models(3);  // an instance has two berths
  for (RequestId request = 1; request <= 3; ++request) arrive(request, static_cast<ModelId>(request - 1));
  const auto shed = take<Shed>();
  ASSERT_EQ(shed.size(), GetParam() == PolicyKind::fixed ? 1u : 0u);
  if (shed.empty()) return;
  EXPECT_EQ(shed[0].request, 3u);
  EXPECT_EQ(shed[0].reason, ShedReason::no_place);
  EXPECT_EQ(shed[0].retry_after, Nanos{});
}

TEST_P(PolicyTest, AModelLeavesOnlyWithoutRequests) {
  up(0, Role::unified);
  add_models(1);
  arrive(1, 0);
  EXPECT_FALSE(policy_->remove_model(0, now(), out_));
  policy_->cancelled(1, now(), out_);
  EXPECT_TRUE(policy_->remove_model(0, now(), out_));
  arrive(2, 0);
  EXPECT_EQ(take<Shed>().at(0).reason, ShedReason::no_instance);
}

TEST_P(PolicyTest, ReplaysWhatADeadInstanceHeld) {
  up(0, Role::unified);
  add_models(1);
  arrive(1, 0);
  for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  ASSERT_EQ(take<RunPrefill>().size(), 1u);
  policy_->prefilled(0, std::vector<Progress>{{1, 1, false}}, now(), out_);
  ASSERT_EQ(take<RunDecode>().size(), 1u);
  policy_->stepped(0, std::vector<Progress>{{1, 1, false}}, now(), out_);
  policy_->instance_down(0, now(), out_);
  EXPECT_EQ(policy_->view().requests, 1u);  // nobody is there to serve it, but it is not lost
  up(1, Role::unified);
  for (const Load& load : take<Load>()) policy_->loaded(load.instance, load.model, now(), out_);
  const auto prefill = take<RunPrefill>();
  ASSERT_EQ(prefill.size(), 1u);
  EXPECT_EQ(prefill[0].instance, 1u);
  EXPECT_EQ(prefill[0].prompts[0].tokens, 102u);  // its prompt and the tokens that its user has
}

TEST_P(PolicyTest, AModelThatCannotBeLoadedDoesNotStopOthers) {
  up(0, Role::unified);
  add_models(2);
  arrive(1, 0);
  arrive(2, 1);
  bool failed = false;
  for (int i = 0; i < 4; ++i) {
    for (const Load& load : take<Load>()) {
      if (load.model == 0) {
        policy_->load_failed(load.instance, 0, now(), out_);
        failed = true;
      } else {
        policy_->loaded(load.instance, load.model, now(), out_);
      }
    }
  }
  EXPECT_TRUE(failed);
  const auto prefill = take<RunPrefill>();
  ASSERT_EQ(prefill.size(), 1u);
  EXPECT_EQ(prefill[0].model, 1u);
  policy_->cancelled(1, now(), out_);
  EXPECT_EQ(policy_->view().requests, 1u);
}

INSTANTIATE_TEST_SUITE_P(Every, PolicyTest,
                         ::testing::Values(PolicyKind::quota, PolicyKind::request, PolicyKind::fixed,
                                           PolicyKind::slack),
                         [](const auto& suite) { return std::string(to_string(suite.param)); });

using GroupedPrefill = PolicyTest;

TEST_P(GroupedPrefill, AGroupTakesEightInItsLife) {
  up(0, Role::prefill);
  up(1, Role::prefill);
  up(2, Role::decode);
  add_models(2);
  for (RequestId id = 0; id < 10; ++id) arrive(id, 0, 10);
  // The ninth began a group on the other instance: both load the model.
  const auto loads = take<Load>();
  ASSERT_EQ(loads.size(), 2u);
  policy_->loaded(loads[0].instance, 0, now(), out_);
  policy_->loaded(loads[1].instance, 0, now(), out_);
  const auto prefills = take<RunPrefill>();
  ASSERT_EQ(prefills.size(), 2u);
  EXPECT_EQ(prefills[0].prompts.size() + prefills[1].prompts.size(), 10u);
  EXPECT_EQ(std::max(prefills[0].prompts.size(), prefills[1].prompts.size()), 8u);
}

TEST_P(GroupedPrefill, LoadsTheNextGroupWhileOneRuns) {
  up(0, Role::prefill);
  up(1, Role::decode);
  add_models(2);
  arrive(1, 0);
  arrive(2, 1);
  const auto first = take<Load>();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].model, 0u);
  policy_->loaded(0, 0, now(), out_);
  EXPECT_EQ(take<RunPrefill>().size(), 1u);
  const auto next = take<Load>();
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].model, 1u);
  EXPECT_EQ(next[0].evict, kNoModel);
}

INSTANTIATE_TEST_SUITE_P(Quota, GroupedPrefill, ::testing::Values(PolicyKind::quota),
                         [](const auto&) { return std::string("quota"); });

TEST(Policies, HaveNames) {
  for (const auto* name : {"quota", "request", "static", "slack"}) {
    const auto kind = parse_policy(name);
    ASSERT_TRUE(kind);
    EXPECT_EQ(to_string(*kind), name);
  }
  EXPECT_NE(parse_policy("best").error().message.find("quota, request, static or slack"), std::string::npos);
  FlatCosts costs;
  EXPECT_FALSE(make_policy(PolicyKind::quota, {.max_rows = 0}, costs));
}

}  // namespace
}  // namespace switchyard::schedule
