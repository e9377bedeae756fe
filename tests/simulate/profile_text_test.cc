// What `switchyard profile` writes is what `switchyard simulate` reads.
#include "simulate/profile_text.h"

#include <gtest/gtest.h>

#include "simulate/picture.h"
#include "simulate/report.h"
#include "simulate/small_pool.h"

namespace switchyard::simulate {
namespace {

std::vector<ProfiledModel> measured() {
  ProfiledModel model{.name = "small, \"odd\": #1", .bytes = 96'800'000, .kv_bytes_per_token = 23040};
  model.steps = {{16, 1, 12.5, 4}, {64, 1, 50, 4.5}, {512, 1, 430, 6}, {1024, 1, 1000, 0}, {64, 8, 0, 12}};
  return {model, {.name = "other", .bytes = 1000, .kv_bytes_per_token = 16, .steps = {{16, 1, 1, 1}}}};
}

TEST(ProfileText, IsReadBack) {
  const auto profile = parse_profile(profile_csv(measured(), "cpu"), "cpu");
  ASSERT_TRUE(profile) << profile.error().message;
  const auto found = profile->find("small_ _odd_: #1");
  ASSERT_NE(found, profile->end());
  EXPECT_DOUBLE_EQ(found->second.prefill(64), 50);
  EXPECT_DOUBLE_EQ(found->second.prefill(1024), 1000);
  EXPECT_DOUBLE_EQ(found->second.decode(1, 512), 6);
  EXPECT_DOUBLE_EQ(found->second.decode(8, 8 * 64), 12);  // its prefill was not measured
  EXPECT_GT(found->second.decode(1, 2048), 6);            // as the slope goes on
}

TEST(ProfileText, TheMapNamesModelsAndMachine) {
  const std::string yaml = model_map_yaml(measured(), "cpu", {4'000'000'000, 12e9});
  const auto entries = parse_model_map(yaml);
  ASSERT_TRUE(entries) << entries.error().message << yaml;
  ASSERT_EQ(entries->size(), 3u);
  EXPECT_EQ((*entries)[0].bytes, 96'800'000u);
  EXPECT_EQ((*entries)[1].kv_bytes_per_token, 16u);
  EXPECT_EQ(find_entry(*entries, "other").value()->profile, "other");
  EXPECT_EQ(find_entry(*entries, "model_07").value()->profile, "small_ _odd_: #1");
  EXPECT_EQ(named_models(*entries)->size(), 2u);
  const auto machines = parse_accelerators(yaml);
  ASSERT_TRUE(machines) << machines.error().message;
  ASSERT_EQ(machines->size(), 1u);
  EXPECT_EQ(machines->front().name, "cpu");
  EXPECT_EQ(machines->front().accelerator.memory_bytes, 4'000'000'000u);
  EXPECT_DOUBLE_EQ(machines->front().accelerator.link_bytes_per_second, 12e9);
  const auto profile = parse_profile(profile_csv(measured(), "cpu"), "cpu");
  EXPECT_TRUE(describe_model(entries->front(), "x", *profile, {}));
}

TEST(ProfileText, UnmeasuredTimesAreMissedWhereTheyAreNeeded) {
  const std::string header = "model,gpu,input_tokens_per_request,batch,prefill_p50_ms,decode_step_p50_ms\n";
  EXPECT_NE(parse_profile(header + "m,G,16,1,,3\n", "G").error().message.find("no prefill"),
            std::string::npos);
  EXPECT_NE(parse_profile(header + "m,G,16,1,3,\n", "G").error().message.find("decode step"),
            std::string::npos);
  EXPECT_FALSE(parse_profile(header + "m,G,,1,3,1\n", "G"));
}

TEST(ProfileText, AcceleratorsAreChecked) {
  const std::string models = "models: [{name: a, bytes: 1GB, profile: x}]\n";
  EXPECT_TRUE(parse_accelerators(models)->empty());
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"accelerators: 3", "must be a list"},
           {"accelerators: [{name: a, memory: 1GB}]", "`link`"},
           {"accelerators: [{name: a, memory: 1GB, link: fast}]", "'fast' is no size"},
           {"accelerators: [{name: a, speed: 3}]", "'speed' is not known"}}) {
    const auto machines = parse_accelerators(models + text);
    ASSERT_FALSE(machines) << text;
    EXPECT_NE(machines.error().message.find(expected), std::string::npos) << machines.error().message;
  }
}

TEST(TokenClock, CountsByDueTime) {
  TokenClock clock;
  const schedule::Targets targets{std::chrono::seconds(2), std::chrono::milliseconds(500)};
  const Nanos arrival = std::chrono::seconds(7);
  EXPECT_TRUE(clock.in_time(arrival, targets, 0, std::chrono::seconds(9)));
  EXPECT_FALSE(clock.in_time(arrival, targets, 1, std::chrono::milliseconds(9501)));
  EXPECT_TRUE(clock.in_time(arrival, targets, 2, std::chrono::seconds(10)));
  EXPECT_EQ(clock.attainment_by_10s(), (std::vector<double>{0.5, 1}));
}

TEST(Picture, DrawsSeveralPoolsBelowEachOther) {
  PoolPicture picture{.title = "a < b",
                      .seconds = 20,
                      .lanes = {"decode-0"},
                      .models = {"one", "two"},
                      .segments = {{0, 0, LaneKind::decode, 1, 2},
                                   {0, 1, LaneKind::load, 1, 3},
                                   {7, 0, LaneKind::decode, 0, 1}},  // no such lane
                      .attainment_by_10s = {1, 0.5},
                      .attainment_by_model = {0.25, 1}};
  const std::string svg = draw(std::vector{picture, picture});
  EXPECT_TRUE(svg.starts_with("<svg"));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find("one 25.0 %"), std::string::npos);
  EXPECT_NE(svg.find("two 1.00-3.00 s"), std::string::npos);
  EXPECT_EQ(svg.find("one 0.00-1.00 s"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::simulate
