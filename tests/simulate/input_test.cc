// What comes from outside: workloads, profiles, model maps.
#include <gtest/gtest.h>

#include "simulate/planner.h"

namespace switchyard::simulate {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(WorkloadFile, ReadsClocksSecondsAndDates) {
  const auto clock = parse_workload(
      "Request Time,Model Name,Input Length,Output Length\r\n00:01:00.500,b,10,2\n00:00:01.250,a,20,3\n");
  ASSERT_TRUE(clock) << clock.error().message;
  ASSERT_EQ(clock->requests.size(), 2u);
  EXPECT_EQ(clock->requests[0].time, milliseconds(1250));
  EXPECT_EQ(clock->models[clock->requests[0].model], "a");
  EXPECT_EQ(clock->requests[1].time, milliseconds(60500));
  const auto plain = parse_workload("model,time,output_tokens,input_tokens\nx,2.5,7,8\n");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->requests[0].input_tokens, 8u);
  const auto dated = parse_workload(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-12-31 23:59:59.5,374,44\n2024-01-01 00:00:01.5,1,1\n");
  ASSERT_TRUE(dated) << dated.error().message;
  EXPECT_EQ(dated->models, std::vector<std::string>{"default"});
  EXPECT_EQ(dated->requests[1].time, seconds(2));
}

TEST(WorkloadFile, ErrorsNameTheLine) {
  const std::string head = "time,model,input_tokens,output_tokens\n";
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"", "empty"},
           {head, "no requests"},
           {"time,model\n1,a\n", "no column for input_tokens"},
           {head + "1,a,5\n", "line 2 has 3 fields"},
           {head + "1,a,5,5\nsoon,a,5,5\n", "line 3: time is 'soon'"},
           {head + "-1,a,5,5\n", "line 2: time"},
           {head + "nan,a,5,5\n", "line 2: time"},
           {head + "1e300,a,5,5\n", "line 2: time"},
           {head + "1:2,a,5,5\n", "no clock"},
           {head + "1,a,0,5\n", "line 2: input tokens"},
           {head + "1,a,5,99999999999\n", "line 2: output tokens"},
           {head + "1,,5,5\n", "no sensible name"},
       }) {
    const auto workload = parse_workload(text);
    ASSERT_FALSE(workload) << text;
    EXPECT_NE(workload.error().message.find(expected), std::string::npos) << workload.error().message;
  }
}

TEST(Generator, MakesWhatItIsAskedFor) {
  GeneratorOptions options{.models = {{"a", 2}, {"b", 0}, {"c", 0.5}}, .seconds = 2000, .seed = 4};
  const auto workload = generate_workload(options);
  ASSERT_TRUE(workload);
  std::array<double, 3> count{};
  double input = 0, output = 0;
  for (const auto& request : workload->requests) {
    ++count[request.model];
    input += request.input_tokens;
    output += request.output_tokens;
  }
  EXPECT_NEAR(count[0], 4000, 250);
  EXPECT_EQ(count[1], 0);
  EXPECT_NEAR(count[2], 1000, 130);
  EXPECT_NEAR(input / (count[0] + count[2]), 700, 70);
  EXPECT_NEAR(output / (count[0] + count[2]), 290, 20);
  EXPECT_TRUE(std::is_sorted(workload->requests.begin(), workload->requests.end(),
                             [](const auto& a, const auto& b) { return a.time < b.time; }));
  options.seconds = 1e12;
  EXPECT_FALSE(generate_workload(options));
  options.seconds = 1e6;
  options.models[0].rate = 1e5;
  EXPECT_FALSE(generate_workload(options));  // too many requests
}

const std::string kProfile =
    "model,gpu,input_tokens_per_request,batch,prefill_p50_ms,decode_step_p50_ms\n"
    "m,G,16,1,10,8\nm,G,1024,1,30,9\nm,G,2048,1,60,10\nm,G,16,8,11,9\nm,G,1024,8,240,11\n"
    "m,G,2048,8,61,1\n"  // split by its server: no such prefill takes 61 ms
    "m,other,16,1,99,99\n";

TEST(Profile, InterpolatesAndGoesOn) {
  const auto profile = parse_profile(kProfile, "G");
  ASSERT_TRUE(profile) << profile.error().message;
  const StepTimes& times = profile->at("m");
  EXPECT_DOUBLE_EQ(times.prefill(16), 10);
  EXPECT_DOUBLE_EQ(times.prefill(1), 10);
  EXPECT_DOUBLE_EQ(times.prefill(520), 20);
  EXPECT_NEAR(times.prefill(4096), 120, 1);
  EXPECT_DOUBLE_EQ(times.decode(1, 16), 8);
  EXPECT_DOUBLE_EQ(times.decode(8, 8 * 1024), 11);
  EXPECT_GT(times.decode(4, 4 * 1024), 9);
  EXPECT_LT(times.decode(4, 4 * 1024), 11);
  EXPECT_GE(times.decode(8, 8 * 2048), 11);  // the odd point is not believed
  EXPECT_GE(times.decode(64, 64 * 1024), times.decode(8, 8 * 1024));
  EXPECT_DOUBLE_EQ(times.scaled(2).decode(1, 16), 16);
}

TEST(Profile, ErrorsSayWhatIsThere) {
  EXPECT_NE(parse_profile(kProfile, "H1").error().message.find("it has G, other"), std::string::npos);
  EXPECT_NE(parse_profile("model,gpu\n", "G").error().message.find("no column"), std::string::npos);
  EXPECT_NE(parse_profile(kProfile + "m,G,16,x,1,1\n", "G").error().message.find("line 9"),
            std::string::npos);
}

const std::string kMap = R"(
models:
  - name: small-*
    times: {prefill_base: 10, prefill_token: 0.02, decode_base: 8, decode_row: 0.05}
    bytes: 4GB
    kv_bytes_per_token: 50000
    count: 6
    rate: 0.05
    ttft: 5s
  - name: large
    times: {prefill_base: 20, prefill_token: 0.04, decode_base: 25}
    bytes: 145GB
    gpus: 4
    count: 3
    rate: [0.01, 0.1, 0.02]
)";

TEST(ModelMap, ReadsEntries) {
  const auto entries = parse_model_map(kMap);
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].bytes, 4'000'000'000u);
  EXPECT_EQ((*entries)[1].gpus, 4u);
  EXPECT_EQ(find_entry(*entries, "small-x").value()->name, "small-*");
  EXPECT_EQ(find_entry(*entries, "tiny").error().code, ErrorCode::not_found);
  const auto model = describe_model((*entries)[0], "small-1", {}, {});
  ASSERT_TRUE(model);
  EXPECT_EQ(model->spec.targets.first_token, seconds(5));
  EXPECT_EQ(model->spec.targets.between_tokens, milliseconds(100));
  EXPECT_EQ(model->spec.kv_block_bytes, 16u * 50000);
  const auto names = named_models(*entries);
  ASSERT_TRUE(names);
  ASSERT_EQ(names->size(), 9u);
  EXPECT_EQ((*names)[7].name, "large-1");
  EXPECT_DOUBLE_EQ((*names)[7].rate, 0.1);
}

TEST(ModelMap, ErrorsNameTheLineAndTheKey) {
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"modles: []", "'modles' is not known"},
           {"models: []", "names no models"},
           {"models: 3", "must be a list"},
           {"models:\n  - bytes: 4GB\n    profile: x", "without a name"},
           {"models:\n  - name: a\n    profile: x", "needs `bytes`"},
           {"models:\n  - name: a\n    bytes: 1GB", "either `profile` or `times`"},
           {"models:\n  - name: a\n    bytes: much", "'much' is no size"},
           {"models:\n  - name: a\n    gpus: 0", "line 3: gpus"},
           {"models:\n  - name: a\n    bytes: 1GB\n    profile: x\n    count: 3\n    rate: [1, 2]",
            "2 rates for 3 models"},
           {"models: [", "line"},
       }) {
    const auto entries = parse_model_map(text);
    ASSERT_FALSE(entries) << text;
    EXPECT_NE(entries.error().message.find(expected), std::string::npos) << entries.error().message;
  }
}

TEST(Units, AreWritten) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(std::uint64_t{3} << 40), "3.00 TiB");
  EXPECT_EQ(setting_for(1), "1MiB");
  EXPECT_EQ(setting_for(std::uint64_t{5} << 20), "5MiB");
  EXPECT_EQ(*parse_bytes(setting_for((std::uint64_t{5} << 30) + 1)), (std::uint64_t{5} << 30) + (1 << 20));
}

TEST(Units, AreReadOrExplained) {
  EXPECT_EQ(*parse_bytes("1.5GB"), 1'500'000'000u);
  EXPECT_EQ(*parse_bytes("2 GiB"), std::uint64_t{2} << 30);
  EXPECT_EQ(*parse_duration("100ms"), milliseconds(100));
  EXPECT_EQ(*parse_duration("2.5"), milliseconds(2500));
  EXPECT_FALSE(parse_duration("-1s"));
  EXPECT_FALSE(parse_duration("10 parsecs"));
  EXPECT_FALSE(parse_bytes(""));
}

TEST(Planner, FindsTheFewestInstances) {
  PlanOptions options;
  options.models = *parse_model_map(kMap);
  options.accelerator = {.memory_bytes = std::uint64_t{96} << 30, .link_bytes_per_second = 40e9};
  options.seconds = 120;
  options.seeds = 2;
  const auto plan = make_plan(options);
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->widths.size(), 2u);
  EXPECT_EQ(plan->widths[0].models, 6u);
  EXPECT_EQ(plan->widths[0].alone, 6u);
  EXPECT_EQ(plan->widths[0].instances, 1u);
  EXPECT_EQ(plan->widths[1].alone, 3u);
  EXPECT_EQ(plan->gpus_alone, 6u + 3 * 4);
  EXPECT_EQ(plan->gpus, plan->widths[0].instances + plan->widths[1].instances * 4);
  EXPECT_GT(plan->saved(), 0.5);
  EXPECT_GE(plan->widths[0].attainment, 0.9);
  EXPECT_EQ(to_json(*plan, options)["gpus"], plan->gpus);
}

TEST(Planner, SaysWhenNothingSuffices) {
  PlanOptions options;
  options.models = *parse_model_map(
      "models:\n  - {name: slow, times: {decode_base: 5000}, bytes: 4GB, rate: 0.2}\n");  // its steps miss
                                                                                          // any target
  options.accelerator = {.memory_bytes = std::uint64_t{96} << 30, .link_bytes_per_second = 40e9};
  options.seconds = 60;
  options.seeds = 1;
  const auto slow = make_plan(options);
  ASSERT_FALSE(slow);
  EXPECT_EQ(slow.error().code, ErrorCode::exhausted);
  options.models[0].bytes = 90'000'000'000;
  const auto large = make_plan(options);
  ASSERT_FALSE(large);
  EXPECT_NE(large.error().message.find("more GPUs per instance"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::simulate
