// Records to figures, traces to lanes, and the whole benchmark against a server that is none.
#include "pool_bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "bench/fake_server.h"
#include "child_server.h"
#include "pool_report.h"
#include "profile_bench.h"

namespace switchyard::bench {
namespace {

using namespace std::chrono_literals;
using testing::FakeServer;

const schedule::Targets kTargets{1s, 100ms};

ReplayRecord record(ReplayEnd end, std::vector<Nanos> tokens) {
  return {.end = end, .sent = 5ms, .over = 2s, .tokens = std::move(tokens), .status = 200};
}

// Four requests of two tokens for two models.
simulate::Workload small_workload() {
  simulate::Workload workload;
  workload.models = {"a", "b"};
  workload.requests = {{0s, 0, 8, 2}, {0s, 0, 8, 2}, {0s, 1, 8, 2}, {4s, 1, 8, 2}};
  return workload;
}

TEST(Count, AsTheSimulatorDoes) {
  const simulate::Workload workload = small_workload();
  Replay replay;
  replay.records = {record(ReplayEnd::ended, {500ms, 600ms}), record(ReplayEnd::ended, {1s, 1101ms}),
                    record(ReplayEnd::shed, {}), record(ReplayEnd::failed, {4900ms})};
  replay.records[3].error = "it died";
  replay.records[3].sent = 4250ms;
  const std::vector<schedule::Targets> targets(2, kTargets);
  const ReplayOutcome outcome = count(workload, targets, replay);
  const simulate::SimulationResult& result = outcome.result;
  EXPECT_EQ(result.total.requests, 4u);
  EXPECT_EQ(result.total.tokens, 8u);
  EXPECT_EQ(result.total.in_time, 4u);  // 1101 ms is late by one
  EXPECT_EQ(result.total.strict, 1u);
  EXPECT_EQ(result.total.good, 1u);
  EXPECT_EQ(result.total.shed, 1u);
  EXPECT_EQ(result.unfinished, 1u);
  EXPECT_DOUBLE_EQ(result.attainment(), 0.5);
  EXPECT_DOUBLE_EQ(result.attainment_of_admitted(), 4.0 / 6);
  EXPECT_DOUBLE_EQ(result.strict_attainment(), 0.25);
  ASSERT_EQ(result.first_token_seconds.size(), 3u);
  EXPECT_DOUBLE_EQ(result.first_token_seconds[2], 0.9);  // from its time, not from when it was sent
  EXPECT_DOUBLE_EQ(outcome.latest_send, 0.25);
  EXPECT_EQ(outcome.errors.at("it died"), 1u);
  EXPECT_EQ(result.models[1].tokens, 4u);
}

TEST(Count, InterruptedRequestsCountNowhere) {
  const simulate::Workload workload = small_workload();
  Replay replay{.interrupted = true};
  replay.seconds = 2.5;
  replay.records = {
      record(ReplayEnd::ended, {500ms}), record(ReplayEnd::open, {500ms}), record(ReplayEnd::failed, {}), {}};
  const ReplayOutcome outcome = count(workload, std::vector<schedule::Targets>(2, kTargets), replay);
  EXPECT_EQ(outcome.result.total.requests, 2u);
  EXPECT_EQ(outcome.result.cancelled, 2u);
  EXPECT_EQ(outcome.short_answers, 1u);
  EXPECT_EQ(outcome.result.total.tokens, 3u);  // the short answer is whole
  EXPECT_EQ(outcome.result.total.strict, 1u);
  EXPECT_DOUBLE_EQ(outcome.span, 2.5);
}

constexpr std::string_view kTrace =
    R"({"t":1.0,"event":"turn","instance":"decode-1","model":"old","kind":"decode","seconds":0.5,"rows":1,"tokens":3}
{"t":10.5,"event":"turn","instance":"decode-1","model":"b","kind":"prefill","seconds":1.0,"rows":1,"tokens":30}
no json
{"t":11.0,"event":"switch","instance":"decode-0","model":"c","from":"a","bytes":100,"load_seconds":0.25,"wait_seconds":0.2,"hidden":false}
{"t":11.5,"event":"switch","instance":"decode-0","model":"a","from":"c","bytes":0,"load_seconds":0,"wait_seconds":0,"hidden":true}
{"t":12.0,"event":"turn","instance":"decode-0","model":"a","kind":"decode","seconds":0.5,"rows":2,"tokens":20}
{"t":12.5,"event":"move","request":3,"from":"decode-0","to":"host","bytes":4096,"seconds":0.01}
{"t":13.0,"event":"something new"}
{"t":13.0,"event":"turn","model":"a"}
{"t":"soon","event":"turn","instance":7,"model":[]}
{"t":14.0,"event":"turn","inst)";

TEST(Trace, BecomesLanesAndFigures) {
  const ServerTrace trace = read_trace(kTrace, 10, {"a", "b"});
  EXPECT_EQ(trace.instances, (std::vector<std::string>{"decode-0", "decode-1"}));
  EXPECT_EQ(trace.models, (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_EQ(trace.segments.size(), 3u);
  EXPECT_EQ(trace.segments[0].instance, 1u);
  EXPECT_EQ(trace.segments[0].model, 1u);
  EXPECT_DOUBLE_EQ(trace.segments[0].begin, 0);  // cut at the replay's beginning
  EXPECT_DOUBLE_EQ(trace.segments[0].end, 0.5);
  EXPECT_EQ(trace.segments[1].kind, simulate::LaneKind::load);
  EXPECT_EQ(trace.segments[1].model, 2u);
  EXPECT_EQ(trace.segments[2].instance, 0u);
  EXPECT_DOUBLE_EQ(trace.segments[2].begin, 1.5);
  EXPECT_EQ(trace.switches, 2u);
  EXPECT_EQ(trace.hidden, 1u);
  EXPECT_EQ(trace.loads, 1u);
  EXPECT_EQ(trace.moves, 1u);
  EXPECT_DOUBLE_EQ(trace.prefill.rate(), 30);
  EXPECT_DOUBLE_EQ(trace.decode.rate(), 40);
  EXPECT_EQ(trace.skipped, 3u);
  EXPECT_EQ(first_prefill(kTrace), 10.5);
  EXPECT_EQ(first_prefill(""), std::nullopt);
  EXPECT_TRUE(read_trace("", 0, {}).segments.empty());
}

TEST(Shape, IsReadFromHealth) {
  const PoolShape shape = parse_shape(
      R"({"instances":[{"role":"prefill"},{"role":"decode"},{"role":"decode"},{"role":"unified"},{},3]})");
  EXPECT_EQ(shape.prefill, 1u);
  EXPECT_EQ(shape.decode, 2u);
  EXPECT_EQ(shape.unified, 1u);
  EXPECT_EQ(parse_shape("{").decode, 0u);
}

TEST(Command, GetsWhatIsMissing) {
  std::vector<std::string> command = {"serve", "--port", "8123"};
  EXPECT_EQ(*complete_command(command, "slack", "/tmp/t"), 8123);
  EXPECT_EQ(command,
            (std::vector<std::string>{"serve", "--port", "8123", "--policy", "slack", "--trace", "/tmp/t"}));
  command = {"serve", "-p=81"};
  EXPECT_EQ(*complete_command(command, "", ""), 81);
  EXPECT_EQ(command.size(), 2u);
  command = {"serve"};
  const auto port = complete_command(command, "", "");
  ASSERT_TRUE(port);
  EXPECT_EQ(command[2], std::to_string(*port));
  command = {"serve", "--port", "0"};
  EXPECT_FALSE(complete_command(command, "", ""));
}

FakeServer::Answer pool_answer(const std::string& target, const std::string& body) {
  if (target == "/health") return {{testing::whole(200, R"({"instances":[{"role":"unified"}]})")}};
  if (target == "/v1/models") return {{testing::whole(200, R"({"data":[{"id":"a"},{"id":"b"}]})")}};
  if (body.find("\"b\"") != std::string::npos) return {{testing::whole(429, "full")}};
  return {testing::good_stream(2)};
}

PoolBenchOptions options_for(const std::string& url) {
  PoolBenchOptions options;
  options.workload = small_workload();
  options.fit.speed = 20;
  options.url = url;
  options.targets = [](const std::vector<std::string>& models) -> Result<std::vector<schedule::Targets>> {
    return std::vector<schedule::Targets>(models.size(), {20s, 1s});
  };
  options.tell = [](const std::string&) {};
  return options;
}

TEST(PoolBench, MeasuresARunningServerBesideAPrediction) {
  FakeServer server(pool_answer);
  PoolBenchOptions options = options_for(server.url());
  options.policies = {"quota"};
  options.predict = [](const simulate::Workload& workload, schedule::PolicyKind policy,
                       const PoolShape& shape) -> Result<simulate::SimulationResult> {
    EXPECT_EQ(policy, schedule::PolicyKind::quota);
    EXPECT_EQ(shape.unified, 1u);
    simulate::SimulationResult result;
    result.models.resize(workload.models.size());
    for (const auto& request : workload.requests) {
      simulate::add(result.models[request.model], {.tokens = 2, .in_time = 2, .ended = true});
    }
    result.total = simulate::total_of(result.models);
    return result;
  };
  std::vector<PoolRun> runs;
  const Status done = run_pool_bench(options, runs);
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].outcome.result.total.ended, 2u);
  EXPECT_EQ(runs[0].outcome.result.total.shed, 2u);
  EXPECT_DOUBLE_EQ(runs[0].outcome.result.attainment(), 0.5);

  const auto json = to_json(runs);
  EXPECT_EQ(json["policy"], "quota");
  EXPECT_EQ(json["shed"], 2);
  EXPECT_DOUBLE_EQ(json["attainment"], 0.5);
  EXPECT_DOUBLE_EQ(json["prediction"]["attainment"], 1.0);
  EXPECT_DOUBLE_EQ(json["relative_difference"]["attainment"], -0.5);
  EXPECT_TRUE(json["relative_difference"]["ttft_seconds_mean"].is_null());  // predicted: none
  EXPECT_EQ(json["per_model"].size(), 2u);
  const std::string table = to_table(runs);
  EXPECT_NE(table.find("quota, simulated"), std::string::npos) << table;
  EXPECT_NE(table.find("100.00 (-50.0 %)"), std::string::npos) << table;
  runs.push_back(runs[0]);
  runs[1].trace = read_trace(kTrace, 10, {"a", "b"});
  EXPECT_EQ(to_json(runs).size(), 2u);
  EXPECT_EQ(to_json(runs)[1]["decode_tokens_per_second"], 40);
  EXPECT_NE(to_table(runs).find("30 40"), std::string::npos);
  const std::string svg = to_svg(runs);
  EXPECT_NE(svg.find("decode-1"), std::string::npos);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  const std::string lines = record_lines(runs[0].fitted.workload, runs[0].replay);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 4);
}

TEST(PoolBench, SaysWhatIsWrongWithTheServer) {
  const auto error_of = [](FakeServer::Script script) {
    FakeServer server(std::move(script));
    std::vector<PoolRun> runs;
    const Status done = run_pool_bench(options_for(server.url()), runs);
    EXPECT_TRUE(runs.empty());
    return done ? std::string("none") : done.error().message;
  };
  EXPECT_NE(error_of([](const std::string& target, const std::string&) {
              return FakeServer::Answer{
                  {target == "/health" ? testing::whole(404, "") : testing::whole(401, "key?")}};
            }).find("401: key?"),
            std::string::npos);
  EXPECT_NE(error_of([](const std::string&, const std::string&) {
              return FakeServer::Answer{{testing::whole(200, "{}")}};
            }).find("lists no model"),
            std::string::npos);
  std::vector<PoolRun> runs;
  PoolBenchOptions options = options_for("http://127.0.0.1:1");
  options.command = {"x"};
  EXPECT_FALSE(run_pool_bench(options, runs));
  options.command.clear();
  options.policies = {"quota", "slack"};
  EXPECT_FALSE(run_pool_bench(options, runs));
}

class Directory : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-test.XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::filesystem::path path_;
};

TEST_F(Directory, AServerThatDoesNotStartIsQuoted) {
  PoolBenchOptions options = options_for("");
  options.directory = path_;
  options.command = {"/bin/sh", "-c", "echo it is broken; exit 3"};
  std::vector<PoolRun> runs;
  Status done = run_pool_bench(options, runs);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("status 3; it said:\nit is broken"), std::string::npos)
      << done.error().message;
  options.command = {"/no/such/program"};
  done = run_pool_bench(options, runs);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("could not be run"), std::string::npos) << done.error().message;
}

TEST_F(Directory, AServerThatDoesNotStopIsEnded) {
  // The mark says that the trap is set: a signal before would end it at once.
  auto child =
      ChildServer::start({"/bin/sh", "-c", "trap '' INT; echo on; while :; do read x; done"}, path_ / "log");
  ASSERT_TRUE(child);
  const TimePoint limit = monotonic_now() + 20s;
  while (monotonic_now() < limit && (*child)->last_words().find("on") == std::string::npos) {
    std::this_thread::yield();
  }
  EXPECT_TRUE((*child)->running());
  (*child)->stop(10ms);
  EXPECT_FALSE((*child)->running());
  EXPECT_NE((*child)->last_words().find("signal 9"), std::string::npos) << (*child)->last_words();
}

TEST_F(Directory, InterruptionWhileAServerStarts) {
  PoolBenchOptions options = options_for("");
  options.directory = path_;
  options.command = {"/bin/sh", "-c", "exec sleep 60"};
  options.stop = [] { return true; };
  std::vector<PoolRun> runs;
  const Status done = run_pool_bench(options, runs);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::cancelled);
}

TEST(ProfilePoints, EssentialsFirstAndNothingThatDoesNotFit) {
  ProfileOptions options;
  options.prompts = {256, 16};
  options.rows = {4, 1};
  options.contexts = {64, 1024};
  std::vector<std::string> left_out;
  EXPECT_EQ(
      profile_points(options, "m", 8192, 1 << 20, left_out),
      (std::vector<ProfilePoint>{
          {16, 0}, {16, 1}, {64, 0}, {64, 1}, {256, 0}, {256, 1}, {1024, 0}, {1024, 1}, {64, 4}, {1024, 4}}));
  EXPECT_TRUE(left_out.empty());
  EXPECT_EQ(profile_points(options, "m", 512, 100, left_out),
            (std::vector<ProfilePoint>{{16, 0}, {16, 1}, {64, 0}, {64, 1}}));
  EXPECT_EQ(left_out.size(), 3u);
}

}  // namespace
}  // namespace switchyard::bench
