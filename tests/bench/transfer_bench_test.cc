// That the benchmark of the transfer engine runs and says what it found, in all its forms. Never how fast.
#include "transfer_bench.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "bench_link.h"
#include "fabric/fabric.h"
#include "post_bench.h"
#include "transfer_side.h"

namespace switchyard::bench {
namespace {

// A page list is 4 MiB long: pages are large here, so that a sanitizer is done soon.
TransferBenchOptions brief(const std::string& fabric) {
  return {.fabrics = {fabric},
          .sizes = {4096, 65536},
          .depths = {1, 4},
          .pages = {65536},
          .seconds = 0.002,
          .repeats = 2,
          .quiet = true};
}

// The benchmark forks: each of these runs in a process of its own, which has no other threads.
void run_in_child(const std::function<bool()>& body) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT({ std::_Exit(body() ? 0 : 1); }, ::testing::ExitedWithCode(0), "");
}

bool has_series(const nlohmann::json& row, const char* name, std::size_t count) {
  const auto& series = row.at(name);
  return series.at("values").size() == count && series.at("low") <= series.at("median") &&
         series.at("median") <= series.at("high") && series.at("low") > 0;
}

class TransferBench : public ::testing::TestWithParam<const char*> {};

TEST_P(TransferBench, MeasuresEverythingAndSaysSo) {
  const std::string name = GetParam();
  run_in_child([name] {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("switchyard-bench-" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    TransferBenchOptions options = brief(name);
    options.json = folder / "report.json";
    options.plot = folder / "plot.svg";
    const auto status = run_transfer_bench(options);
    if (!status) {
      fmt::print(stderr, "{}\n", status.error().message);
      return false;
    }
    std::ifstream file(options.json);
    const auto report = nlohmann::json::parse(file);
    std::ifstream picture(options.plot);
    const std::string svg(std::istreambuf_iterator<char>(picture), {});
    std::filesystem::remove_all(folder);
    bool good = report.at("fabrics").size() == 1 && report["fabrics"][0].at("fabric") == name &&
                !report["machine"].get<std::string>().empty() && svg.starts_with("<svg") &&
                svg.ends_with("</svg>\n");
    std::map<std::string, int> kinds;
    for (const auto& row : report["fabrics"][0].at("rows")) {
      const std::string kind = row.at("kind");
      ++kinds[kind];
      good &= has_series(row, "engine", 2);
      if (kind == "writes" || kind == "pages") {
        good &=
            has_series(row, "rail", 2) && row.at("ratio_rail") > 0 && row.contains("cpu_seconds_per_byte");
      }
      if (kind == "latency") good &= has_series(row, "p99_9", 2) && has_series(row, "rail", 2);
    }
    good &= kinds["writes"] == 8 && kinds["pages"] == 2 && kinds["latency"] == 1 &&
            kinds["latency_after_pause"] == 1 && kinds["message_latency"] == 1 && kinds["message_rate"] == 1;
    if (!good) fmt::print(stderr, "{}\n", report.dump(1));
    return good;
  });
}

INSTANTIATE_TEST_SUITE_P(Fabrics, TransferBench, ::testing::Values("shm", "net", "net,net"),
                         [](const auto& chosen) {
                           std::string name = chosen.param;
                           std::replace(name.begin(), name.end(), ',', '_');
                           return name;
                         });

TEST(TransferBenchOptions, NonsenseIsRefused) {
  TransferBenchOptions options = brief("shm");
  options.sizes = {0};
  const auto report = measure_transfers(options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::invalid);
}

TEST(TransferBenchOptions, UnknownFabricIsExplained) {
  run_in_child([] {
    const auto report = measure_transfers(brief("carrier-pigeon"));
    return !report && report.error().message.find("carrier-pigeon") != std::string::npos;
  });
}

TEST(TransferBenchServe, ServesOneBenchmarkOverTcp) {
  run_in_child([] {
    // The child of this process is the other host.
    auto started = Child::start([](Link parent) {
      auto link = Link::accept("127.0.0.1:0", [&](std::uint16_t port) {
        static_cast<void>(parent.send({{"port", port}}));
      });
      if (link) serve_transfer_bench(std::move(*link));
    });
    if (!started) return false;
    const auto told = started->second.receive(monotonic_now() + std::chrono::seconds(30));
    if (!told) return false;
    TransferBenchOptions options = brief("net");
    options.writes_only = true;
    options.peer = fmt::format("127.0.0.1:{}", told->at("port").get<int>());
    const auto report = measure_transfers(options);
    if (!report) fmt::print(stderr, "{}\n", report.error().message);
    return report && report->fabrics.at(0).rows.size() == 8;
  });
}

TEST(TransferReport, TableAndPictureOfAnything) {
  TransferReport report{.machine = "a machine", .repeats = 2};
  EXPECT_NE(to_svg(report).find("nothing was measured"), std::string::npos);
  report.fabrics.push_back({.name = "net<&", .error = "a cable is missing"});
  EXPECT_NE(to_table(report).find("a cable is missing"), std::string::npos);
  report.fabrics[0].rows.push_back({.bytes = 65536, .engine = {{2e9, 4e9}}, .rail = {{6e9, 6e9}}});
  const auto& row = report.fabrics[0].rows[0];
  EXPECT_DOUBLE_EQ(row.engine.median(), 3e9);
  EXPECT_DOUBLE_EQ(row.ratio(row.rail), 0.5);
  EXPECT_DOUBLE_EQ(row.ratio(row.plain), 0);
  EXPECT_NE(to_table(report).find("64 KiB"), std::string::npos);
  EXPECT_EQ(to_svg(report).find("net<"), std::string::npos);
  TransferRow time{.kind = TransferRow::Kind::latency, .engine = {{2e-6}}, .rail = {{1e-6}}};
  EXPECT_DOUBLE_EQ(time.ratio(time.rail), 0.5);
}

TEST(BenchLink, WhatIsNoBenchmarkIsRefused) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  Link link(ends[0]);
  const char junk[] = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_EQ(::write(ends[1], junk, sizeof junk), static_cast<ssize_t>(sizeof junk));
  const auto got = link.receive(monotonic_now() + std::chrono::seconds(10));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::corrupt);
  ::close(ends[1]);
  EXPECT_FALSE(Link::connect("nowhere"));
  EXPECT_FALSE(from_hex("0x"));
  EXPECT_EQ(to_hex(*from_hex("00ff7a")), "00ff7a");
}

TEST(PostBench, PostsOnBothKindsOfRail) {
  for (const bool ordered : {true, false}) {
    for (const bool counter : {true, false}) {
      for (const std::uint32_t pages : {1u, 100u}) {
        const auto status =
            run_post_bench({.writes = 5000, .pages = pages, .ordered = ordered, .counter = counter});
        EXPECT_TRUE(status) << status.error().message;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::bench
