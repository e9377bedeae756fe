#include "simulate/model_map.h"

#include <fnmatch.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <functional>

namespace switchyard::simulate {
namespace {

using Reader = std::function<Status(const YAML::Node&)>;
using Readers = std::map<std::string, Reader, std::less<>>;

constexpr std::uint32_t kMaxCount = 10'000;
constexpr std::size_t kMaxText = 1 << 20;

Status read_mapping(const YAML::Node& node, std::string_view where, const Readers& readers) {
  if (!node.IsMap())
    return fail(ErrorCode::invalid, "line {}: {} must be a mapping", node.Mark().line + 1, where);
  for (const auto& item : node) {
    const auto key = item.first.as<std::string>("");
    const auto reader = readers.find(key);
    if (reader == readers.end()) {
      std::string known;
      for (const auto& [name, unused] : readers) known += (known.empty() ? "" : ", ") + name;
      return fail(ErrorCode::invalid, "line {}: '{}' is not known in {}; known are: {}",
                  item.first.Mark().line + 1, key, where, known);
    }
    if (auto status = reader->second(item.second); !status) {
      return fail(status.error().code, "line {}: {}: {}", item.second.Mark().line + 1, key,
                  status.error().message);
    }
  }
  return {};
}

Result<double> number(const YAML::Node& node, double least, double most) {
  const std::string text = node.IsScalar() ? node.Scalar() : "";
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= least) || !(value <= most)) {
    return fail(ErrorCode::invalid, "'{}' is not a number from {} to {}", text, least, most);
  }
  return value;
}

template <class T>
Reader number_into(T& target, double least, double most) {
  return [&target, least, most](const YAML::Node& node) -> Status {
    const auto value = number(node, least, most);
    if (!value) return pass(value.error());
    target = static_cast<T>(*value);
    return {};
  };
}

Reader text_into(std::string& target) {
  return [&target](const YAML::Node& node) -> Status {
    if (!node.IsScalar() || node.Scalar().empty()) return fail(ErrorCode::invalid, "must be a name");
    target = node.Scalar();
    return {};
  };
}

template <class Target, class Parse>
Reader parsed_into(Target& target, Parse parse) {
  return [&target, parse](const YAML::Node& node) -> Status {
    const auto value = parse(node.IsScalar() ? node.Scalar() : "");
    if (!value) return pass(value.error());
    if (!(*value > std::decay_t<decltype(*value)>{})) return fail(ErrorCode::invalid, "must be above zero");
    target = *value;
    return {};
  };
}

Result<ModelEntry> parse_entry(const YAML::Node& node) {
  ModelEntry entry;
  LinearTimes times;
  const Readers coefficients = {{"prefill_base", number_into(times.prefill_base_ms, 0, 1e6)},
                                {"prefill_token", number_into(times.prefill_token_ms, 0, 1e6)},
                                {"decode_base", number_into(times.decode_base_ms, 1e-6, 1e6)},
                                {"decode_context", number_into(times.decode_context_ms, 0, 1e6)},
                                {"decode_row", number_into(times.decode_row_ms, 0, 1e6)}};
  const Readers readers = {{"name", text_into(entry.name)},
                           {"profile", text_into(entry.profile)},
                           {"times",
                            [&](const YAML::Node& value) -> Status {
                              if (auto read = read_mapping(value, "times", coefficients); !read) return read;
                              entry.times = times;
                              return {};
                            }},
                           {"scale", number_into(entry.scale, 1e-3, 1e3)},
                           {"bytes", parsed_into(entry.bytes, parse_bytes)},
                           {"kv_bytes_per_token", number_into(entry.kv_bytes_per_token, 1, 1 << 28)},
                           {"gpus", number_into(entry.gpus, 1, 64)},
                           {"ttft", parsed_into(entry.ttft, parse_duration)},
                           {"tbt", parsed_into(entry.tbt, parse_duration)},
                           {"weight", number_into(entry.weight, 1e-3, 1e3)},
                           {"max_waiting", number_into(entry.max_waiting, 0, 1e6)},
                           {"count", number_into(entry.count, 1, kMaxCount)},
                           {"rate", [&](const YAML::Node& value) -> Status {
                              const auto add = [&](const YAML::Node& one) -> Status {
                                const auto rate = number(one, 0, 1e6);
                                if (!rate) return pass(rate.error());
                                entry.rates.push_back(*rate);
                                return {};
                              };
                              if (!value.IsSequence()) return add(value);
                              for (const auto& one : value) {
                                if (auto added = add(one); !added) return added;
                              }
                              return {};
                            }}};
  if (auto read = read_mapping(node, "a model", readers); !read) return pass(read.error());
  const auto line = node.Mark().line + 1;
  if (entry.name.empty()) return fail(ErrorCode::invalid, "line {}: a model without a name", line);
  if (entry.bytes == 0)
    return fail(ErrorCode::invalid, "line {}: model '{}' needs `bytes`", line, entry.name);
  if (entry.profile.empty() == !entry.times) {
    return fail(ErrorCode::invalid, "line {}: model '{}' needs either `profile` or `times`", line,
                entry.name);
  }
  if (entry.rates.size() > 1 && entry.rates.size() != entry.count) {
    return fail(ErrorCode::invalid, "line {}: model '{}' has {} rates for {} models", line, entry.name,
                entry.rates.size(), entry.count);
  }
  return entry;
}

Result<NamedAccelerator> parse_accelerator(const YAML::Node& node) {
  NamedAccelerator result;
  std::uint64_t link = 0;
  const Readers readers = {{"name", text_into(result.name)},
                           {"memory", parsed_into(result.accelerator.memory_bytes, parse_bytes)},
                           {"link", parsed_into(link, parse_bytes)}};
  if (auto read = read_mapping(node, "an accelerator", readers); !read) return pass(read.error());
  if (result.name.empty() || result.accelerator.memory_bytes == 0 || link == 0) {
    return fail(ErrorCode::invalid, "line {}: an accelerator needs `name`, `memory` and `link`",
                node.Mark().line + 1);
  }
  result.accelerator.link_bytes_per_second = static_cast<double>(link);
  return result;
}

template <class T, class Parse>
Reader list_into(std::vector<T>& target, Parse parse) {
  return [&target, parse](const YAML::Node& list) -> Status {
    if (!list.IsSequence()) return fail(ErrorCode::invalid, "must be a list");
    for (const auto& node : list) {
      auto one = parse(node);
      if (!one) return pass(one.error());
      target.push_back(*std::move(one));
    }
    return {};
  };
}

struct ModelMap {
  std::vector<ModelEntry> models;
  std::vector<NamedAccelerator> accelerators;
};

Result<ModelMap> parse(const std::string& yaml) {
  if (yaml.size() > kMaxText)
    return fail(ErrorCode::invalid, "the model map is larger than {} bytes", kMaxText);
  try {
    const YAML::Node root = YAML::Load(yaml);
    ModelMap map;
    const Readers readers = {{"models", list_into(map.models, parse_entry)},
                             {"accelerators", list_into(map.accelerators, parse_accelerator)}};
    if (auto read = read_mapping(root, "a model map", readers); !read) return pass(read.error());
    if (map.models.empty())
      return fail(ErrorCode::invalid, "the model map names no models (`models:`, a list)");
    return map;
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::invalid, "line {}: {}", error.mark.line + 1, error.msg);
  }
}

}  // namespace

Result<std::vector<ModelEntry>> parse_model_map(const std::string& yaml) {
  auto map = parse(yaml);
  if (!map) return pass(map.error());
  return std::move(map->models);
}

Result<std::vector<NamedAccelerator>> parse_accelerators(const std::string& yaml) {
  auto map = parse(yaml);
  if (!map) return pass(map.error());
  return std::move(map->accelerators);
}

Result<const ModelEntry*> find_entry(const std::vector<ModelEntry>& entries, const std::string& name) {
  for (const ModelEntry& entry : entries) {
    if (fnmatch(entry.name.c_str(), name.c_str(), 0) == 0) return &entry;
  }
  return fail(ErrorCode::not_found, "the model map has no entry for the workload's model '{}'", name);
}

Result<SimulatedModel> describe_model(const ModelEntry& entry, const std::string& name,
                                      const Profile& profile, const schedule::Targets& targets) {
  SimulatedModel model;
  if (entry.times) {
    model.times = StepTimes::linear(*entry.times);
  } else {
    const auto found = profile.find(entry.profile);
    if (found == profile.end()) {
      std::string known;
      for (const auto& [one, unused] : profile) known += (known.empty() ? "" : ", ") + one;
      return fail(ErrorCode::not_found, "model '{}': the profile has no '{}' on this GPU; it has: {}", name,
                  entry.profile, known.empty() ? "nothing (give --profile)" : known);
    }
    model.times = found->second;
  }
  model.times = model.times.scaled(entry.scale);
  model.spec = {
      .name = name,
      .weight_bytes = entry.bytes,
      .kv_block_bytes = entry.kv_bytes_per_token * schedule::kBlockTokens,
      .targets = {entry.ttft.value_or(targets.first_token), entry.tbt.value_or(targets.between_tokens)},
      .weight = entry.weight,
      .max_waiting = entry.max_waiting};
  return model;
}

Result<std::vector<GeneratedModel>> named_models(const std::vector<ModelEntry>& entries) {
  std::vector<GeneratedModel> models;
  for (const ModelEntry& entry : entries) {
    if (entry.is_rest() && entries.size() > 1) continue;
    if (entry.rates.empty())
      return fail(ErrorCode::invalid, "model '{}' needs a `rate` to generate requests", entry.name);
    std::string base = entry.name;
    std::erase(base, '*');
    for (std::uint32_t i = 0; i < entry.count; ++i) {
      models.push_back({entry.count == 1 ? base : fmt::format("{}-{}", base, i),
                        entry.rates.size() == 1 ? entry.rates[0] : entry.rates[i]});
    }
  }
  return models;
}

}  // namespace switchyard::simulate
