#include "transfer_bench.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <thread>

#include "transfer_drive.h"
#include "transfer_pattern.h"

namespace switchyard::bench {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 40;  // of one write: sums of some do not overflow
constexpr std::uint64_t kListBytes = 4 << 20;                // of one page list
constexpr std::uint32_t kListDepth = 4;
constexpr std::uint64_t kMessageBytes = 64;
constexpr std::uint32_t kMessageDepth = 32;
constexpr Nanos kPause = std::chrono::milliseconds(5);

double load_average() {
  double load = 0;
  getloadavg(&load, 1);
  return load;
}

std::string machine() {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    model = line.substr(line.find(':') + 2);
    break;
  }
  utsname system{};
  uname(&system);
  return fmt::format("{}, {} cores, {} {}", model, std::thread::hardware_concurrency(), system.sysname,
                     system.release);
}

// One line on a terminal that shows what is being measured.
class Progress {
 public:
  Progress(bool quiet, std::size_t steps) : shown_(!quiet && isatty(STDERR_FILENO)), steps_(steps) {}
  ~Progress() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  void step(const std::string& what) {
    ++done_;
    if (shown_) fmt::print(stderr, "\r\033[K[{:>3}/{}] {}", done_, steps_, what);
  }

 private:
  const bool shown_;
  const std::size_t steps_;
  std::size_t done_ = 0;
};

std::uint64_t memory_for(const TransferBenchOptions& options) {
  std::uint64_t most = 1 << 20;
  for (const std::uint64_t bytes : options.sizes) {
    for (const std::uint32_t depth : options.depths)
      most = std::max(most, WritePlaces({.bytes = bytes, .depth = depth, .span = options.span}).bytes());
  }
  return options.writes_only || options.pages.empty() ? most : std::max(most, 2 * kListBytes * kListDepth);
}

// Measures on one fabric that both sides have open.
class Measuring {
 public:
  Measuring(const TransferBenchOptions& options, Link& link, Side& side)
      : options_(options), link_(link), side_(side) {}

  using Engine = std::function<Result<Throughput>()>;
  using Rail = std::function<Result<Throughput>(RailSet&)>;

  // Engine, bare rail, plain libfabric, engine, …
  Status speed(TransferRow& row, const Engine& engine, const Rail& rail) {
    for (std::uint32_t i = 0; i <= options_.repeats; ++i) {
      // The first round touches memory and connects, and is forgotten.
      auto found = cpu_of({}, engine, row.engine_cpu_near, row.engine_cpu_far);
      if (!found) return pass(found.error());
      row.engine.values.push_back(rate(row, *found));
      if (rail) {
        found = cpu_of(
            "raw", [&] { return rail(side_.raw()); }, row.rail_cpu_near, row.rail_cpu_far);
        if (!found) return pass(found.error());
        row.rail.values.push_back(rate(row, *found));
        if (!side_.plain().rails.empty()) {
          Series near, far;
          found = cpu_of(
              "plain", [&] { return rail(side_.plain()); }, near, far);
          if (!found) return pass(found.error());
          row.plain.values.push_back(rate(row, *found));
        }
      }
      if (i == 0) forget(row);
    }
    return {};
  }

  Status time(TransferRow& row, const std::function<Result<Times>()>& engine, bool with_rails) {
    for (std::uint32_t i = 0; i <= options_.repeats; ++i) {
      const auto times = engine();
      if (!times) return pass(times.error());
      row.engine.values.push_back(percentile(*times, 0.5));
      row.p99.values.push_back(percentile(*times, 0.99));
      row.p999.values.push_back(percentile(*times, 0.999));
      for (auto [set, name, series] :
           {std::tuple(&side_.raw(), "raw", &row.rail), std::tuple(&side_.plain(), "plain", &row.plain)}) {
        if (!with_rails || set->rails.empty()) continue;
        if (auto far = link_.ask({{"do", name}}); !far) return pass(far.error());
        const auto bare = rail_echoes(*set, side_.base(), options_.seconds);
        if (auto far = link_.ask({{"do", "rest"}}); !far) return pass(far.error());
        if (!bare) return pass(bare.error());
        series->values.push_back(percentile(*bare, 0.5));
      }
      if (i == 0) forget(row);
    }
    return {};
  }

 private:
  static double rate(const TransferRow& row, const Throughput& found) {
    return row.kind == TransferRow::Kind::message_rate ? found.writes_per_second : found.bytes_per_second;
  }

  static void forget(TransferRow& row) {
    for (Series* series : {&row.engine, &row.rail, &row.plain, &row.p99, &row.p999, &row.engine_cpu_near,
                           &row.engine_cpu_far, &row.rail_cpu_near, &row.rail_cpu_far})
      series->values.clear();
  }

  // Runs it with the far side in a mode, and adds the processes' CPU time per byte.
  Result<Throughput> cpu_of(const char* mode, const std::function<Result<Throughput>()>& run, Series& near,
                            Series& far) {
    const auto before = link_.ask({{"do", mode != nullptr ? mode : "rest"}});
    if (!before) return pass(before.error());
    const double start = cpu_seconds();
    auto found = run();
    const double spent = cpu_seconds() - start;
    const auto after = link_.ask({{"do", "rest"}});
    if (!found) return found;
    if (!after) return pass(after.error());
    if (found->bytes > 0) {
      near.values.push_back(spent / found->bytes);
      far.values.push_back((after->value("cpu", 0.0) - before->value("cpu", 0.0)) / found->bytes);
    }
    return found;
  }

  const TransferBenchOptions& options_;
  Link& link_;
  Side& side_;
};

// What will be measured on every fabric, in this order.
std::vector<TransferRow> plan(const TransferBenchOptions& options) {
  using Kind = TransferRow::Kind;
  std::vector<TransferRow> rows;
  for (const bool counter : {false, true}) {
    for (const std::uint32_t depth : options.depths) {
      for (const std::uint64_t bytes : options.sizes)
        rows.push_back({.kind = Kind::writes, .bytes = bytes, .depth = depth, .counter = counter});
    }
  }
  if (options.writes_only) return rows;
  for (const bool scattered : {true, false}) {
    for (const std::uint64_t bytes : options.pages) {
      const std::uint64_t pages = std::clamp<std::uint64_t>(kListBytes / bytes, 1, PagedWrite::kMaxPages);
      rows.push_back({.kind = Kind::pages,
                      .bytes = bytes,
                      .depth = kListDepth,
                      .pages = static_cast<std::uint32_t>(pages),
                      .counter = true,
                      .scattered = scattered});
    }
  }
  rows.push_back({.kind = Kind::latency, .bytes = 8, .counter = true});
  rows.push_back({.kind = Kind::idle_latency, .bytes = 8, .counter = true});
  rows.push_back({.kind = Kind::message_latency, .bytes = 8});
  rows.push_back({.kind = Kind::message_rate, .bytes = kMessageBytes, .depth = kMessageDepth});
  return rows;
}

std::string title(const TransferRow& row) {
  return fmt::format("{} {} x{}{}", to_string(row.kind), size_text(row.bytes), row.depth,
                     row.counter ? " counted" : "");
}

Status measure_row(const TransferBenchOptions& options, Measuring& measuring, Side& side, TransferRow& row) {
  using Kind = TransferRow::Kind;
  switch (row.kind) {
    case Kind::writes: {
      const WriteLoad load{row.bytes, row.depth, options.span, row.counter};
      return measuring.speed(
          row, [&] { return engine_writes(side, load, options.seconds); },
          [&](RailSet& set) { return rail_writes(set, side.base(), load, options.seconds); });
    }
    case Kind::pages: {
      const PageLoad load{row.bytes, row.pages, row.depth, row.scattered};
      return measuring.speed(
          row, [&] { return engine_pages(side, load, options.seconds); },
          [&](RailSet& set) { return rail_pages(set, side.base(), load, options.seconds); });
    }
    case Kind::latency:
      return measuring.time(
          row, [&] { return engine_echoes(side, options.seconds); }, true);
    case Kind::idle_latency:
      return measuring.time(
          row, [&] { return engine_echoes(side, options.seconds, kPause); }, false);
    case Kind::message_latency:
      return measuring.time(
          row, [&] { return engine_message_echoes(side, options.seconds); }, false);
    case Kind::message_rate:
      return measuring.speed(
          row, [&] { return engine_messages(side, row.bytes, row.depth, options.seconds); }, {});
  }
  return {};
}

Status measure_fabric(const TransferBenchOptions& options, Link& link, Progress& progress,
                      TransferReport::Fabric& fabric) {
  const std::uint64_t bytes = memory_for(options);
  const auto far_card = link.ask({{"do", "open"}, {"fabric", fabric.name}, {"bytes", bytes}});
  if (!far_card) return pass(far_card.error());
  auto side = Side::open(fabric.name, link.local_host(), bytes);
  if (!side) return pass(side.error());
  const auto far_tokens = link.ask({{"do", "meet"}, {"card", (*side)->card()}});
  if (!far_tokens) return pass(far_tokens.error());
  if (auto ok = (*side)->meet(*far_card); !ok) return ok;
  if (auto joined = link.ask({{"do", "join"}, {"tokens", (*side)->tokens()}}); !joined)
    return pass(joined.error());
  if (auto ok = (*side)->join(*far_tokens); !ok) return ok;
  Measuring measuring(options, link, **side);
  for (TransferRow& row : plan(options)) {
    progress.step(fmt::format("{}: {}", fabric.name, title(row)));
    if (auto ok = measure_row(options, measuring, **side, row); !ok)
      return fail_at(fmt::format("{}, {}", fabric.name, title(row)), ok.error());
    fabric.rows.push_back(std::move(row));
  }
  side->reset();
  if (auto closed = link.ask({{"do", "close"}}); !closed) return pass(closed.error());
  return {};
}

Status write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return fail(ErrorCode::io, "cannot write {}", path.string());
  return {};
}

}  // namespace

Result<TransferReport> measure_transfers(const TransferBenchOptions& options) {
  // Written so that what is no number is refused as well.
  const bool timed = options.seconds > 0;
  auto is_size = [](std::uint64_t bytes) { return bytes > 0 && bytes <= kMaxBytes; };
  if (!timed || options.repeats == 0 || !std::ranges::all_of(options.sizes, is_size) ||
      !std::ranges::all_of(options.pages, is_size) || std::ranges::count(options.depths, 0u) != 0 ||
      options.span > kMaxBytes) {
    return fail(ErrorCode::invalid,
                "sizes, depths, seconds and repeats have to be positive, and sizes {} bytes at most",
                kMaxBytes);
  }
  // The child first, while this process has one thread.
  Child child;
  Link link;
  if (options.peer.empty()) {
    auto started = Child::start(serve_transfer_bench);
    if (!started) return pass(started.error());
    child = std::move(started->first);
    link = std::move(started->second);
  } else {
    auto connected = Link::connect(options.peer);
    if (!connected) return pass(connected.error());
    link = std::move(*connected);
  }
  TransferReport report{.machine = machine(),
                        .load_before = load_average(),
                        .seconds = options.seconds,
                        .repeats = options.repeats,
                        .span = options.span};
  for (const std::string& name : options.fabrics) report.fabrics.push_back({.name = name});
  if (options.fabrics.empty()) {
    for (const fabric::FabricReport& found : fabric::list_fabrics(link.local_host())) {
      if (found.usable && (found.name != "shm" || options.peer.empty()))
        report.fabrics.push_back({.name = found.name});
    }
  }
  Progress progress(options.quiet, plan(options).size() * report.fabrics.size());
  for (TransferReport::Fabric& fabric : report.fabrics) {
    if (auto ok = measure_fabric(options, link, progress, fabric); !ok) {
      fabric.error = ok.error().message;
      // The fabrics that were not asked for by name need not work; those that were are to be measured.
      if (!options.fabrics.empty() || ok.error().code == ErrorCode::peer_lost) return pass(ok.error());
    }
  }
  report.load_after = load_average();
  return report;
}

Status run_transfer_bench(const TransferBenchOptions& options) {
  // Before minutes of measuring.
  for (const std::filesystem::path& path : {options.json, options.plot}) {
    if (path.empty()) continue;
    if (auto ok = write_file(path, ""); !ok) return ok;
  }
  const auto report = measure_transfers(options);
  if (!report) return pass(report.error());
  if (!options.quiet) fmt::print("{}", to_table(*report));
  if (!options.json.empty()) {
    if (auto ok = write_file(options.json, to_json(*report).dump(2) + "\n"); !ok) return ok;
  }
  if (!options.plot.empty()) {
    if (auto ok = write_file(options.plot, to_svg(*report)); !ok) return ok;
  }
  return {};
}

Status serve_transfer_bench_at(const std::string& where) {
  auto link = Link::accept(where, [&](std::uint16_t port) {
    fmt::print("Waiting at port {} for 'switchyard bench transfer --peer'\n", port);
    std::fflush(stdout);
  });
  if (!link) return pass(link.error());
  serve_transfer_bench(std::move(*link));
  return {};
}

}  // namespace switchyard::bench
