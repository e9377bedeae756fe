#include "pool_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "simulate/picture.h"
#include "simulate/report.h"

namespace switchyard::bench {
namespace {

using simulate::SimulationResult;

constexpr double kReady =
    0.005 + 1e-9;  // a switch that takes no longer hid its load; as the simulator counts

std::string name_of(const PoolRun& run) { return run.policy.empty() ? "server" : run.policy; }

double goodput(const SimulationResult& result, double span) {
  return static_cast<double>(result.total.good) / std::max(span, 1e-9);
}

double rounded(double value) { return std::round(value * 1e6) / 1e6; }

// A figure of a result, or nothing where it has none; and whether a difference says something.
struct Line {
  std::string name;
  std::function<double(const SimulationResult&, double span)> value;
  double factor = 1;
  int digits = 0;
  bool compared = false;
};

const std::vector<Line>& lines() {
  static const std::vector<Line> kLines = {
      {"requests", [](const SimulationResult& r, double) { return double(r.total.requests); }},
      {"attainment, %", [](const SimulationResult& r, double) { return r.attainment(); }, 100, 2, true},
      {"strict attainment, %", [](const SimulationResult& r, double) { return r.strict_attainment(); }, 100,
       2, true},
      {"goodput, requests/s", goodput, 1, 3, true},
      {"first token, mean s",
       [](const SimulationResult& r, double) { return simulate::mean(r.first_token_seconds); }, 1, 3, true},
      {"first token, median s",
       [](const SimulationResult& r, double) { return simulate::percentile(r.first_token_seconds, 0.5); }, 1,
       3, true},
      {"first token, p99 s",
       [](const SimulationResult& r, double) { return simulate::percentile(r.first_token_seconds, 0.99); }, 1,
       3, true},
      {"shed", [](const SimulationResult& r, double) { return double(r.total.shed); }},
      {"failed", [](const SimulationResult& r, double) { return double(r.unfinished); }},
      {"cut short", [](const SimulationResult& r, double) { return double(r.cancelled); }},
      {"last end, s", [](const SimulationResult& r, double) { return r.seconds; }, 1, 1}};
  return kLines;
}

std::string cell(const std::string& text) { return fmt::format("{:>22}", text); }

// What only a trace or a simulation knows.
std::string switch_cell(std::uint64_t switches, double hidden, double median) {
  return fmt::format("{} {:.0f} % {:.1f} ms", switches, 100 * hidden, 1e3 * median);
}

double hidden_share(const std::vector<double>& seconds) {
  const auto hidden =
      std::count_if(seconds.begin(), seconds.end(), [](double value) { return value <= kReady; });
  return seconds.empty() ? 1 : static_cast<double>(hidden) / static_cast<double>(seconds.size());
}

}  // namespace

double relative_difference(double measured, double predicted) {
  if (measured == predicted) return 0;
  if (predicted == 0) return std::numeric_limits<double>::infinity();
  return (measured - predicted) / predicted;
}

std::string to_table(std::span<const PoolRun> runs) {
  std::string text = fmt::format("{:<24}", "");
  for (const PoolRun& run : runs) {
    text += cell(name_of(run) + (run.replay.interrupted ? " (broken off)" : ""));
    if (run.predicted) text += cell(name_of(run) + ", simulated");
  }
  text += "\n";
  for (const Line& line : lines()) {
    text += fmt::format("{:<24}", line.name);
    for (const PoolRun& run : runs) {
      const double value = line.value(run.outcome.result, run.outcome.span);
      text += cell(fmt::format("{:.{}f}", value * line.factor, line.digits));
      if (!run.predicted) continue;
      const double predicted = line.value(*run.predicted, run.fitted.workload.seconds());
      const double difference = relative_difference(value, predicted);
      const bool compared = line.compared && std::isfinite(difference);
      text += cell(fmt::format("{:.{}f}", predicted * line.factor, line.digits) +
                   (compared ? fmt::format(" ({:+.1f} %)", 100 * difference) : ""));
    }
    text += "\n";
  }
  const bool traced =
      std::any_of(runs.begin(), runs.end(), [](const PoolRun& run) { return run.trace || run.predicted; });
  if (traced) {
    text += fmt::format("{:<24}", "switches, hidden, median");
    for (const PoolRun& run : runs) {
      text += cell(run.trace ? switch_cell(run.trace->switches, run.trace->hidden_share(),
                                           simulate::percentile(run.trace->switch_seconds, 0.5))
                             : "");
      if (!run.predicted) continue;
      const auto& seconds = run.predicted->switch_seconds;
      text += cell(
          switch_cell(run.predicted->switches, hidden_share(seconds), simulate::percentile(seconds, 0.5)));
    }
    text += "\n";
  }
  if (std::any_of(runs.begin(), runs.end(), [](const PoolRun& run) { return run.trace.has_value(); })) {
    // Where these are far from the profile's, other work has slowed the server.
    text += fmt::format("{:<24}", "prefill, decode tokens/s");
    for (const PoolRun& run : runs) {
      text += cell(
          run.trace ? fmt::format("{:.0f} {:.0f}", run.trace->prefill.rate(), run.trace->decode.rate()) : "");
      if (run.predicted) text += cell("");
    }
    text += "\n";
  }
  for (const PoolRun& run : runs) {
    const std::string name = name_of(run);
    if (run.outcome.latest_send > 0.05) {
      text +=
          fmt::format("{}: requests were sent up to {:.2f} s late: this machine is too busy for the client\n",
                      name, run.outcome.latest_send);
    }
    if (run.outcome.short_answers > 0) {
      text += fmt::format("{}: {} answers ended before the asked length\n", name, run.outcome.short_answers);
    }
    if (run.fitted.shortened > 0) {
      text += fmt::format("{}: {} requests were shortened to fit\n", name, run.fitted.shortened);
    }
    for (const auto& [error, times] : run.outcome.errors) {
      text += fmt::format("{}: failed {} times: {}\n", name, times, error);
    }
  }
  return text;
}

namespace {

nlohmann::ordered_json run_json(const PoolRun& run) {
  const SimulationResult& result = run.outcome.result;
  nlohmann::ordered_json json;
  json["policy"] = name_of(run);
  json["models"] = run.fitted.workload.models.size();
  json["instances"] = {
      {"prefill", run.shape.prefill}, {"decode", run.shape.decode}, {"unified", run.shape.unified}};
  simulate::write_outcome(json, result, run.outcome.span);
  json["failed"] = result.unfinished;
  json["interrupted"] = run.replay.interrupted;
  json["short_answers"] = run.outcome.short_answers;
  json["shortened"] = run.fitted.shortened;
  json["latest_send_seconds"] = rounded(run.outcome.latest_send);
  json["errors"] = run.outcome.errors;
  if (run.trace) {
    const ServerTrace& trace = *run.trace;
    json["prefill_tokens_per_second"] = rounded(trace.prefill.rate());
    json["decode_tokens_per_second"] = rounded(trace.decode.rate());
    json["switches"] = trace.switches;
    json["switch_seconds_p50"] = rounded(simulate::percentile(trace.switch_seconds, 0.5));
    json["switch_seconds_p99"] = rounded(simulate::percentile(trace.switch_seconds, 0.99));
    json["switches_hidden"] = rounded(trace.hidden_share());
    json["loads"] = trace.loads;
    json["load_bytes_per_second"] =
        rounded(trace.load_seconds > 0 ? trace.load_bytes / trace.load_seconds : 0);
    json["kv_moves"] = trace.moves;
    json["kv_bytes_moved"] = trace.move_bytes;
  }
  json["per_model"] = simulate::model_outcomes(run.fitted.workload.models, result);
  if (!run.predicted) return json;
  const double span = run.fitted.workload.seconds();
  auto& prediction = json["prediction"] = nlohmann::ordered_json::object();
  simulate::write_outcome(prediction, *run.predicted, span);
  prediction["switches"] = run.predicted->switches;
  prediction["switch_seconds_p50"] = rounded(simulate::percentile(run.predicted->switch_seconds, 0.5));
  prediction["switches_hidden"] = rounded(hidden_share(run.predicted->switch_seconds));
  prediction["per_model"] = simulate::model_outcomes(run.fitted.workload.models, *run.predicted);
  auto& difference = json["relative_difference"] = nlohmann::ordered_json::object();
  const auto compare = [&](const char* key, double measured, double predicted) {
    const double value = relative_difference(measured, predicted);
    difference[key] = std::isfinite(value) ? nlohmann::ordered_json(rounded(value)) : nullptr;
  };
  compare("attainment", result.attainment(), run.predicted->attainment());
  compare("strict_attainment", result.strict_attainment(), run.predicted->strict_attainment());
  compare("goodput_rps", goodput(result, run.outcome.span), goodput(*run.predicted, span));
  compare("ttft_seconds_mean", simulate::mean(result.first_token_seconds),
          simulate::mean(run.predicted->first_token_seconds));
  return json;
}

}  // namespace

nlohmann::ordered_json to_json(std::span<const PoolRun> runs) {
  if (runs.size() == 1) return run_json(runs[0]);
  auto json = nlohmann::ordered_json::array();
  for (const PoolRun& run : runs) json.push_back(run_json(run));
  return json;
}

std::string to_svg(std::span<const PoolRun> runs) {
  std::vector<simulate::PoolPicture> pictures;
  for (const PoolRun& run : runs) {
    const SimulationResult& result = run.outcome.result;
    simulate::PoolPicture& picture = pictures.emplace_back();
    picture.title =
        fmt::format("{}: {} models, {} requests, {:.1f} % of tokens in time", name_of(run),
                    run.fitted.workload.models.size(), result.total.requests, 100 * result.attainment());
    picture.seconds = std::max(result.seconds, run.fitted.workload.seconds());
    picture.models = run.fitted.workload.models;
    picture.attainment_by_10s = result.attainment_by_10s;
    picture.attainment_by_model = simulate::attainment_by_model(result);
    if (!run.trace) continue;
    picture.lanes = run.trace->instances;
    picture.models = run.trace->models;
    picture.segments = run.trace->segments;
  }
  return simulate::draw(pictures);
}

}  // namespace switchyard::bench
