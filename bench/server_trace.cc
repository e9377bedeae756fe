#include "server_trace.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace switchyard::bench {
namespace {

using Json = nlohmann::json;
using simulate::LaneKind;

double number(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number()) return 0;
  const double value = found->get<double>();
  return value >= 0 && value < 1e15 ? value : 0;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || !found->is_string() ? std::string() : found->get<std::string>();
}

template <class F>
void for_each_line(std::string_view lines, F&& use) {
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    if (end > 0) use(lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
}

class Reader {
 public:
  Reader(double start, const std::vector<std::string>& models) : start_(start) {
    for (const std::string& model : models) index_of(model, trace_.models, model_ids_);
  }

  void line(std::string_view line) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || text(json, "event").empty()) {
      ++trace_.skipped;
      return;
    }
    const double end = number(json, "t") - start_;
    if (end < 0) return;
    const std::string event = text(json, "event");
    if (event == "turn") {
      const bool prefill = text(json, "kind") == "prefill";
      const double seconds = number(json, "seconds");
      if (!segment(json, prefill ? LaneKind::prefill : LaneKind::decode, end, seconds)) return;
      ServerTrace::Work& work = prefill ? trace_.prefill : trace_.decode;
      work.tokens += number(json, "tokens");
      work.seconds += seconds;
    } else if (event == "switch") {
      switched(json, end);
    } else if (event == "move") {
      ++trace_.moves;
      trace_.move_bytes += number(json, "bytes");
    }
  }

  ServerTrace finish() {
    // Instances by name: processes come up in any order.
    std::vector<std::string> sorted = trace_.instances;
    std::sort(sorted.begin(), sorted.end());
    for (simulate::LaneSegment& segment : trace_.segments) {
      const auto place = std::lower_bound(sorted.begin(), sorted.end(), trace_.instances[segment.instance]);
      segment.instance = static_cast<std::uint32_t>(place - sorted.begin());
    }
    trace_.instances = std::move(sorted);
    std::stable_sort(trace_.segments.begin(), trace_.segments.end(),
                     [](const auto& a, const auto& b) { return a.begin < b.begin; });
    return std::move(trace_);
  }

 private:
  using Ids = std::map<std::string, std::uint32_t, std::less<>>;

  static std::uint32_t index_of(const std::string& name, std::vector<std::string>& names, Ids& ids) {
    const auto [place, added] = ids.emplace(name, static_cast<std::uint32_t>(names.size()));
    if (added) names.push_back(name);
    return place->second;
  }

  // False: it says too little.
  bool segment(const Json& json, LaneKind kind, double end, double seconds) {
    const std::string instance = text(json, "instance"), model = text(json, "model");
    if (instance.empty() || model.empty() || trace_.segments.size() >= ServerTrace::kMaxEvents) {
      ++trace_.skipped;
      return false;
    }
    trace_.segments.push_back({index_of(instance, trace_.instances, instance_ids_),
                               index_of(model, trace_.models, model_ids_), kind, std::max(0.0, end - seconds),
                               end});
    return true;
  }

  void switched(const Json& json, double end) {
    ++trace_.switches;
    const auto hidden = json.find("hidden");
    trace_.hidden += hidden != json.end() && hidden->is_boolean() && hidden->get<bool>();
    trace_.switch_seconds.push_back(number(json, "wait_seconds"));
    const double seconds = number(json, "load_seconds");
    if (seconds <= 0) return;
    ++trace_.loads;
    trace_.load_bytes += number(json, "bytes");
    trace_.load_seconds += seconds;
    segment(json, LaneKind::load, end, seconds);
  }

  const double start_;
  ServerTrace trace_;
  Ids instance_ids_, model_ids_;
};

}  // namespace

ServerTrace read_trace(std::string_view lines, double start, const std::vector<std::string>& models) {
  Reader reader(start, models);
  for_each_line(lines, [&](std::string_view line) { reader.line(line); });
  return reader.finish();
}

std::optional<double> first_prefill(std::string_view lines) {
  std::optional<double> first;
  for_each_line(lines, [&](std::string_view line) {
    // Most lines are decode turns.
    if (line.find("prefill") == std::string_view::npos) return;
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || text(json, "event") != "turn" || text(json, "kind") != "prefill") return;
    first = std::min(first.value_or(1e15), number(json, "t"));
  });
  return first;
}

}  // namespace switchyard::bench
