// Making a workload fit a server: ids, lengths, times.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "replay.h"

namespace switchyard::bench {
namespace {

constexpr std::size_t kMaxModels = 100'000;

bool shorten(std::uint32_t& value, std::uint32_t most) {
  if (most == 0 || value <= most) return false;
  value = most;
  return true;
}

bool fit_context(simulate::WorkloadRequest& request, std::uint32_t context) {
  if (context == 0 || request.input_tokens + request.output_tokens <= context) return false;
  request.output_tokens = std::max(1u, std::min(request.output_tokens, context / 2));
  request.input_tokens = std::max(1u, std::min(request.input_tokens, context - request.output_tokens));
  return true;
}

}  // namespace

Result<std::vector<ServedModel>> parse_models(std::string_view body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  std::vector<ServedModel> models;
  if (json.is_object() && json.contains("data") && json["data"].is_array()) {
    for (const auto& one : json["data"]) {
      if (models.size() >= kMaxModels || !one.is_object() || !one.contains("id") || !one["id"].is_string())
        continue;
      ServedModel model{.id = one["id"]};
      const auto length = one.find("max_model_len");
      if (length != one.end() && length->is_number_unsigned()) {
        model.max_tokens =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(length->get<std::uint64_t>(), UINT32_MAX));
      }
      models.push_back(std::move(model));
    }
  }
  if (models.empty()) return fail(ErrorCode::corrupt, "/v1/models lists no model");
  return models;
}

Result<FittedWorkload> fit(const simulate::Workload& workload, std::span<const ServedModel> models,
                           const FitOptions& options) {
  if (models.empty()) return fail(ErrorCode::invalid, "the server has no models to send requests to");
  if (!(options.speed > 0)) return fail(ErrorCode::invalid, "the speed must be above zero");
  std::map<std::string, std::uint32_t, std::less<>> ids;
  for (std::uint32_t i = 0; i < models.size(); ++i) ids.emplace(models[i].id, i);
  // Only models that get requests are counted.
  std::vector<std::uint32_t> target(workload.models.size());
  std::map<std::uint32_t, std::uint32_t> places;
  FittedWorkload fitted;
  std::uint32_t turn = 0;
  for (std::size_t i = 0; i < workload.models.size(); ++i) {
    const auto same = ids.find(workload.models[i]);
    const std::uint32_t id =
        same != ids.end() ? same->second : turn++ % static_cast<std::uint32_t>(models.size());
    const auto [place, added] = places.emplace(id, static_cast<std::uint32_t>(places.size()));
    if (added) fitted.workload.models.push_back(models[id].id);
    target[i] = place->second;
  }
  std::vector<std::uint32_t> contexts(places.size());
  for (const auto& [id, place] : places) contexts[place] = models[id].max_tokens;
  for (simulate::WorkloadRequest request : workload.requests) {
    const double seconds = to_seconds(request.time) / options.speed;
    if (options.seconds > 0 && seconds > options.seconds) break;
    request.time = Nanos(std::llround(seconds * 1e9));
    request.model = target[request.model];
    request.input_tokens = std::max(request.input_tokens, 1u);
    request.output_tokens = std::max(request.output_tokens, 1u);
    bool cut = shorten(request.input_tokens, options.max_prompt);
    cut |= shorten(request.output_tokens, options.max_tokens);
    cut |= fit_context(request, contexts[request.model]);
    fitted.shortened += cut;
    fitted.workload.requests.push_back(request);
  }
  if (fitted.workload.requests.empty()) {
    return fail(ErrorCode::invalid, "no request is left to send: the first one comes after {} s",
                options.seconds);
  }
  return fitted;
}

}  // namespace switchyard::bench
