#include "schedule/quota.h"

#include <gtest/gtest.h>

#include "schedule/admission.h"

namespace switchyard::schedule {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Quota, IsWhatTheFormulaSays) {
  const std::vector<double> headroom = {4, 4, 4};
  const auto four = round_quotas(headroom, 3, 4);
  EXPECT_DOUBLE_EQ(four.alpha, 0.9375);
  EXPECT_EQ(four.seconds, (std::vector<double>{4, 4, 4}));
  const auto three = round_quotas(headroom, 3, 3);
  EXPECT_DOUBLE_EQ(three.alpha, 1);
  EXPECT_EQ(three.seconds, (std::vector<double>{3, 3, 3}));
}

TEST(Quota, SharesTimeByStepTime) {
  // n = 10 and 5: the batch with steps twice as long gets twice the time, so that both make as many tokens.
  const auto quotas = round_quotas(std::vector<double>{10, 5}, 1, 4);
  EXPECT_DOUBLE_EQ(quotas.alpha, 0.5);  // 1 / (5 * 4) + 0.3 is below the least
  EXPECT_DOUBLE_EQ(quotas.seconds[1], 2 * quotas.seconds[0]);
  EXPECT_DOUBLE_EQ(quotas.seconds[0], 1 / (10 * (0.5 - 0.3)));
  // Within a round of these quotas and switches, every batch makes as many tokens as its users read.
  const double round = quotas.seconds[0] + quotas.seconds[1] + 1;
  EXPECT_NEAR(quotas.seconds[0] * 10, round / quotas.alpha, 1e-9);
}

TEST(Quota, BearsRoundsOfNothingAndFreeSwitches) {
  EXPECT_TRUE(round_quotas({}, 1, 4).seconds.empty());
  const auto free = round_quotas(std::vector<double>{0.5}, 0, 4);
  EXPECT_GT(free.seconds[0], 0);
  EXPECT_LE(free.seconds[0], 4 + 1e-9);
  EXPECT_GE(free.alpha, 2);
}

TimePoint at(Nanos time) { return TimePoint(time); }

TEST(TokenBucket, AllowsABurstAndThenItsRate) {
  TokenBucket bucket({.per_second = 2, .burst = 3});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(bucket.take(at(seconds(1))));
  const auto wait = bucket.take(at(seconds(1)));
  ASSERT_TRUE(wait);
  EXPECT_EQ(*wait, milliseconds(500));
  EXPECT_FALSE(bucket.take(at(seconds(1) + *wait)));
  EXPECT_TRUE(bucket.take(at(seconds(1) + *wait)));
  EXPECT_FALSE(bucket.full(at(seconds(2))));
  EXPECT_TRUE(bucket.full(at(seconds(100))));
}

class AdmissionTest : public ::testing::Test {
 protected:
  static RequestSpec request(ModelId model, std::uint32_t key = 0) { return {.model = model, .key = key}; }
};

TEST_F(AdmissionTest, LimitsModelsAndKeysApart) {
  Admission admission({.key_rate = {.per_second = 1, .burst = 2}});
  admission.add_model(0, {.rate = {.per_second = 1, .burst = 3}});
  admission.add_model(1, {});
  const auto now = at(seconds(1));
  EXPECT_FALSE(admission.refuse(request(0, 7), {}, now));
  EXPECT_FALSE(admission.refuse(request(0, 7), {}, now));
  const auto key = admission.refuse(request(0, 7), {}, now);
  ASSERT_TRUE(key);
  EXPECT_EQ(key->reason, ShedReason::rate);
  EXPECT_GE(key->retry_after, seconds(1));
  // What the key was refused was not charged to the model.
  EXPECT_FALSE(admission.refuse(request(0, 8), {}, now));
  EXPECT_TRUE(admission.refuse(request(0, 9), {}, now));
  EXPECT_FALSE(admission.refuse(request(1, 9), {}, now));
}

TEST_F(AdmissionTest, WhatIsNotMeteredIsBoundedByTheQueueAlone) {
  Admission admission({.max_waiting = 10, .key_rate = {.per_second = 1, .burst = 1}, .shed_overload = true});
  admission.add_model(0, {.rate = {.per_second = 1, .burst = 1}});
  RequestSpec free = request(0);
  free.metered = false;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(admission.refuse(free, {.expected_in_time = 0}, at({})));
  EXPECT_FALSE(admission.refuse(request(0), {}, at({})));
  EXPECT_EQ(admission.refuse(free, {.waiting_total = 10}, at({}))->reason, ShedReason::queue);
}

TEST_F(AdmissionTest, BoundsQueuesAndKeepsSharesFair) {
  Admission admission({.max_waiting = 100});
  admission.add_model(0, {.max_waiting = 5});
  admission.add_model(1, {});
  EXPECT_FALSE(admission.refuse(request(0), {.waiting_of_model = 4}, at({})));
  EXPECT_EQ(admission.refuse(request(0), {.waiting_of_model = 5}, at({}))->reason, ShedReason::queue);
  // Half full: a model with more than its half is refused, the other is not.
  EXPECT_EQ(
      admission
          .refuse(request(1), {.waiting_total = 60, .waiting_of_model = 55, .weight_share = 0.5}, at({}))
          ->reason,
      ShedReason::queue);
  EXPECT_FALSE(admission.refuse(request(1), {.waiting_total = 60, .waiting_of_model = 5, .weight_share = 0.5},
                                at({})));
  EXPECT_TRUE(admission.refuse(request(1), {.waiting_total = 100, .waiting_of_model = 0}, at({})));
}

TEST_F(AdmissionTest, ShedsWhatWouldBeLateOnlyWhenAsked) {
  const AdmissionState late{.expected_in_time = 0.5, .expected_wait = seconds(7)};
  Admission lenient({});
  lenient.add_model(0, {});
  EXPECT_FALSE(lenient.refuse(request(0), late, at({})));
  Admission strict({.shed_overload = true});
  strict.add_model(0, {});
  const auto refusal = strict.refuse(request(0), late, at({}));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, ShedReason::overload);
  EXPECT_EQ(refusal->retry_after, seconds(7));
}

}  // namespace
}  // namespace switchyard::schedule
