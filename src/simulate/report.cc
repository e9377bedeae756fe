#include "simulate/report.h"

#include <algorithm>
#include <cmath>

namespace switchyard::simulate {
namespace {

double rounded(double value) { return std::round(value * 1e6) / 1e6; }

double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 1 : static_cast<double>(part) / static_cast<double>(whole);
}

double hidden_share(const SimulationInput& input, const std::vector<double>& switches) {
  const double ready = to_seconds(input.cluster.activate) + 1e-9;
  const auto hidden =
      std::count_if(switches.begin(), switches.end(), [&](double value) { return value <= ready; });
  return switches.empty() ? 1 : static_cast<double>(hidden) / static_cast<double>(switches.size());
}

}  // namespace

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

std::vector<double> attainment_by_model(const SimulationResult& result) {
  std::vector<double> shares;
  for (const ModelOutcome& outcome : result.models) shares.push_back(ratio(outcome.in_time, outcome.tokens));
  return shares;
}

void write_outcome(nlohmann::ordered_json& json, const SimulationResult& result, double span) {
  json["requests"] = result.total.requests;
  json["seconds"] = rounded(result.seconds);
  json["attainment"] = rounded(result.attainment());
  json["attainment_of_admitted"] = rounded(result.attainment_of_admitted());
  json["strict_attainment"] = rounded(result.strict_attainment());
  json["goodput_rps"] = rounded(static_cast<double>(result.total.good) / std::max(span, 1e-9));
  json["tokens"] = result.total.tokens;
  json["tokens_in_time"] = result.total.in_time;
  json["ended"] = result.total.ended;
  json["shed"] = result.total.shed;
  json["cancelled"] = result.cancelled;
  json["unfinished"] = result.unfinished;
  json["ttft_seconds"] = {{"mean", rounded(mean(result.first_token_seconds))},
                          {"p50", rounded(percentile(result.first_token_seconds, 0.5))},
                          {"p90", rounded(percentile(result.first_token_seconds, 0.9))},
                          {"p99", rounded(percentile(result.first_token_seconds, 0.99))}};
}

nlohmann::ordered_json model_outcomes(const std::vector<std::string>& names, const SimulationResult& result) {
  auto models = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ModelOutcome& outcome = result.models[i];
    models.push_back({{"name", names[i]},
                      {"requests", outcome.requests},
                      {"attainment", rounded(ratio(outcome.in_time, outcome.tokens))},
                      {"strict_attainment", rounded(ratio(outcome.strict, outcome.requests))},
                      {"shed", outcome.shed}});
  }
  return models;
}

nlohmann::ordered_json to_json(const SimulationInput& input, const SimulationResult& result) {
  nlohmann::ordered_json json;
  json["policy"] = schedule::to_string(input.policy);
  json["models"] = input.models.size();
  json["instances"] = {{"prefill", input.cluster.prefill},
                       {"decode", input.cluster.decode},
                       {"unified", input.cluster.unified}};
  write_outcome(json, result, input.workload.seconds());
  json["replayed"] = result.replayed;
  json["busy"] = rounded(result.busy);
  json["switches"] = result.switches;
  json["switch_seconds_p50"] = rounded(percentile(result.switch_seconds, 0.5));
  json["switch_seconds_p99"] = rounded(percentile(result.switch_seconds, 0.99));
  json["switches_hidden"] = rounded(hidden_share(input, result.switch_seconds));
  json["loads"] = result.loads;
  json["kv_moves"] = result.kv_moves;
  json["kv_bytes_moved"] = result.kv_bytes_moved;
  json["steps"] = result.steps;
  json["violations"] = result.violations;
  std::vector<std::string> names;
  for (const SimulatedModel& model : input.models) names.push_back(model.spec.name);
  json["per_model"] = model_outcomes(names, result);
  return json;
}

std::string to_text(const SimulationInput& input, const SimulationResult& result) {
  const double span = std::max(input.workload.seconds(), 1e-9);
  std::string text = fmt::format(
      "policy             {}\n"
      "models             {}\n"
      "instances          {} prefill, {} decode, {} unified\n"
      "requests           {} in {:.1f} s ({} shed, {} cancelled, {} unfinished)\n"
      "attainment         {:.2f} % of tokens in time\n"
      "strict attainment  {:.2f} % of requests without a late token\n"
      "goodput            {:.3f} requests/s with at least 90 % of their tokens in time\n"
      "first token        {:.2f} s median, {:.2f} s 99th percentile\n"
      "switches           {}, median {:.1f} ms, {:.1f} % hidden\n"
      "busy               {:.1f} %\n",
      schedule::to_string(input.policy), input.models.size(), input.cluster.prefill, input.cluster.decode,
      input.cluster.unified, result.total.requests, span, result.total.shed, result.cancelled,
      result.unfinished, 100 * result.attainment(), 100 * result.strict_attainment(),
      static_cast<double>(result.total.good) / span, percentile(result.first_token_seconds, 0.5),
      percentile(result.first_token_seconds, 0.99), result.switches,
      1e3 * percentile(result.switch_seconds, 0.5), 100 * hidden_share(input, result.switch_seconds),
      100 * result.busy);
  for (const std::string& violation : result.violations) text += "VIOLATION          " + violation + "\n";
  return text;
}

}  // namespace switchyard::simulate
