#include "kv_bench.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "pool/pool.h"

namespace switchyard::bench {
namespace {

constexpr Nanos kReadyLimit = std::chrono::seconds(60);
constexpr Nanos kRequestLimit = std::chrono::minutes(5);

class FirstToken final : public pool::GenerationSink {
 public:
  void on_token(const model::SampledToken&) override {
    arrived_ = arrived_ == TimePoint{} ? monotonic_now() : arrived_;
  }
  void on_end(const pool::GenerationEnd& end) override {
    {
      const std::lock_guard lock(mutex_);
      end_ = end;
      over_ = true;
    }
    changed_.notify_all();
  }
  // Errors: timed_out, or the request's.
  Result<TimePoint> wait(TimePoint deadline) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [this] { return over_; })) {
      return fail(ErrorCode::timed_out, "no first token in time");
    }
    if (end_.reason == pool::FinishReason::failed) return pass(end_.error);
    if (arrived_ == TimePoint{}) return fail(ErrorCode::invalid, "the prompt was answered with an end token");
    return arrived_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  pool::GenerationEnd end_;
  TimePoint arrived_{};
};

struct Handover {
  double count = 0;
  double bytes = 0;
  double busy = 0;
  double exposed = 0;
};

Handover handover_of(const pool::Generator& generator) {
  Handover result;
  for (const auto& family : generator.metrics()) {
    double sum = 0;
    for (const auto& metric : family.metric) sum += metric.counter.value;
    if (family.name == "switchyard_instance_handovers_total") result.count = sum;
    if (family.name == "switchyard_instance_handover_bytes_total") result.bytes = sum;
    if (family.name == "switchyard_instance_handover_busy_seconds_total") result.busy = sum;
    if (family.name == "switchyard_instance_handover_exposed_seconds_total") result.exposed = sum;
  }
  return result;
}

// Instances tell their numbers now and then: waits until `count` hand-overs have been told.
Result<Handover> wait_for_handovers(const pool::Generator& generator, double count) {
  const TimePoint limit = monotonic_now() + std::chrono::seconds(10);
  while (monotonic_now() < limit) {
    const Handover now = handover_of(generator);
    if (now.count >= count) return now;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(ErrorCode::timed_out, "the prefill instance does not report its hand-overs");
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

struct Row {
  std::uint32_t tokens = 0;
  double unified = 0;
  double apart = 0;
  double ratio = 0;
  double bytes = 0;
  double busy = 0;
  double exposed = 0;
};

Result<double> time_to_first_token(pool::Generator& generator, std::vector<std::int32_t> prompt) {
  auto sink = std::make_shared<FirstToken>();
  const TimePoint start = monotonic_now();
  const auto id = generator.submit({.model = generator.models().front().id,
                                    .prompt = std::move(prompt),
                                    .sampling = {.temperature = 0},
                                    .max_tokens = 1},
                                   sink);
  if (!id) return pass(id.error().error);
  const auto arrived = sink->wait(start + kRequestLimit);
  if (!arrived) return pass(arrived.error());
  return to_seconds(*arrived - start);
}

Result<std::unique_ptr<pool::Pool>> start(const KvBenchOptions& options, bool unified) {
  pool::PoolConfig config = options.pool;
  config.prefill = config.decode = unified ? 0 : 1;
  config.unified = unified ? 1 : 0;
  auto pool = pool::Pool::start(config, options.program);
  if (!pool) return pass(pool.error());
  if (auto ready = (*pool)->wait_ready(monotonic_now() + kReadyLimit); !ready) return pass(ready.error());
  return pool;
}

Result<Row> measure(pool::Generator& unified, pool::Generator& apart, std::uint32_t tokens,
                    std::uint32_t repeats, std::mt19937& random) {
  Row row{.tokens = tokens};
  std::vector<double> unified_times;
  std::vector<double> apart_times;
  std::vector<double> ratios;
  const auto vocab = static_cast<std::int32_t>(apart.models().front().image->config().vocab);
  const Handover before = handover_of(apart);
  for (std::uint32_t i = 0; i < repeats; ++i) {
    std::vector<std::int32_t> prompt(tokens);
    for (auto& token : prompt) token = std::uniform_int_distribution<std::int32_t>(100, vocab - 1)(random);
    const auto one = time_to_first_token(unified, prompt);
    if (!one) return pass(one.error());
    const auto other = time_to_first_token(apart, prompt);
    if (!other) return pass(other.error());
    unified_times.push_back(*one);
    apart_times.push_back(*other);
    ratios.push_back(*other / *one);
  }
  const auto after = wait_for_handovers(apart, before.count + repeats);
  if (!after) return pass(after.error());
  row.unified = median(unified_times);
  row.apart = median(apart_times);
  row.ratio = median(ratios);
  row.bytes = (after->bytes - before.bytes) / repeats;
  row.busy = (after->busy - before.busy) / repeats;
  row.exposed = (after->exposed - before.exposed) / repeats;
  return row;
}

}  // namespace

Status run_kv_bench(const KvBenchOptions& options) {
  auto unified = start(options, true);
  if (!unified) return pass(unified.error());
  auto apart = start(options, false);
  if (!apart) return pass(apart.error());
  pool::Generator& one = (*unified)->generator();
  pool::Generator& two = (*apart)->generator();
  std::mt19937 random(1);
  const auto context = two.models().front().context;
  // A first request connects the instances and touches memory.
  if (auto warm = measure(one, two, std::min(64u, context - 1), 2, random); !warm) return pass(warm.error());

  nlohmann::json report = {{"benchmark", "kv"},
                           {"model", two.models().front().id},
                           {"fabric", options.pool.fabric},
                           {"repeats", options.repeats},
                           {"rows", nlohmann::json::array()}};
  if (!options.json) {
    fmt::print(
        "Time to first token, prefill and decode in two processes over one ({} repeats, medians; fabric "
        "{})\n\n",
        options.repeats, options.pool.fabric);
    fmt::print("{:>8} {:>12} {:>12} {:>7} {:>10} {:>12} {:>12} {:>8}\n", "tokens", "one, ms", "two, ms",
               "ratio", "KV, MB", "transfer, ms", "exposed, ms", "hidden");
  }
  for (const std::uint32_t tokens : options.lengths) {
    if (tokens >= context)
      return fail(ErrorCode::invalid, "{} tokens do not fit the context of {}", tokens, context);
    const auto row = measure(one, two, tokens, options.repeats, random);
    if (!row) return pass(row.error());
    const double hidden = row->busy > 0 ? 1 - row->exposed / row->busy : 1;
    report["rows"].push_back({{"tokens", row->tokens},
                              {"unified_seconds", row->unified},
                              {"disaggregated_seconds", row->apart},
                              {"ratio", row->ratio},
                              {"kv_bytes", row->bytes},
                              {"transfer_seconds", row->busy},
                              {"exposed_seconds", row->exposed},
                              {"hidden_share", hidden}});
    if (!options.json) {
      fmt::print("{:>8} {:>12.1f} {:>12.1f} {:>7.3f} {:>10.1f} {:>12.2f} {:>12.2f} {:>7.1f}%\n", row->tokens,
                 row->unified * 1e3, row->apart * 1e3, row->ratio, row->bytes / 1e6, row->busy * 1e3,
                 row->exposed * 1e3, hidden * 100);
    }
  }
  if (options.json) fmt::print("{}\n", report.dump(2));
  return {};
}

}  // namespace switchyard::bench
