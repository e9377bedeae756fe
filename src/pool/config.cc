#include "pool/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

namespace switchyard::pool {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;

// Reads one YAML mapping: a function per key, every other key is an error.
using Readers = std::map<std::string, std::function<Status(const YAML::Node&)>, std::less<>>;

Status read_mapping(const YAML::Node& node, std::string_view where, const Readers& readers) {
  if (!node.IsMap()) {
    return fail(ErrorCode::invalid, "line {}: {} must be a mapping", node.Mark().line + 1, where);
  }
  for (const auto& entry : node) {
    const auto key = entry.first.as<std::string>("");
    const auto reader = readers.find(key);
    if (reader == readers.end()) {
      std::string known;
      for (const auto& [name, unused] : readers) known += (known.empty() ? "" : ", ") + name;
      return fail(ErrorCode::invalid, "line {}: '{}' is not known in {}; known are: {}",
                  entry.first.Mark().line + 1, key, where, known);
    }
    if (auto status = reader->second(entry.second); !status) {
      return fail(status.error().code, "line {}: {}: {}", entry.second.Mark().line + 1, key,
                  status.error().message);
    }
  }
  return {};
}

template <class T>
auto number(T& target, std::uint64_t low, std::uint64_t high) {
  return [&target, low, high](const YAML::Node& node) -> Status {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
      return fail(ErrorCode::invalid, "'{}' is not a number from {} to {}", text, low, high);
    }
    target = static_cast<T>(value);
    return {};
  };
}

auto boolean(bool& target) {
  return [&target](const YAML::Node& node) -> Status {
    if (!node.IsScalar() || !YAML::convert<bool>::decode(node, target))
      return fail(ErrorCode::invalid, "must be true or false");
    return {};
  };
}

auto string(std::string& target) {
  return [&target](const YAML::Node& node) -> Status {
    if (!node.IsScalar()) return fail(ErrorCode::invalid, "must be a string");
    target = node.Scalar();
    return {};
  };
}

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
  static const std::map<std::string_view, double> kUnits = {{"", 1},
                                                            {"B", 1},
                                                            {"KB", 1e3},
                                                            {"MB", 1e6},
                                                            {"GB", 1e9},
                                                            {"TB", 1e12},
                                                            {"K", 1024},
                                                            {"M", 1048576},
                                                            {"G", 1073741824},
                                                            {"KiB", 1024},
                                                            {"MiB", 1048576},
                                                            {"GiB", 1073741824},
                                                            {"TiB", 1099511627776.0}};
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const auto factor = kUnits.find(unit);
  if (error != std::errc() || factor == kUnits.end() || !(value >= 0) || value * factor->second >= 9e18) {
    return fail(ErrorCode::invalid, "'{}' is no size; write 512MiB or 2GiB", text);
  }
  return static_cast<std::uint64_t>(value * factor->second);
}

Status validate(const PoolConfig& config) {
  if (config.prefill + config.decode + config.unified == 0) {
    return fail(ErrorCode::invalid, "no instances: ask for prefill and decode ones, or for unified ones");
  }
  if ((config.prefill == 0) != (config.decode == 0)) {
    return fail(ErrorCode::invalid, "{} prefill and {} decode instances: each needs the other",
                config.prefill, config.decode);
  }
  if (config.prefill + config.decode + config.unified > 64) {
    return fail(ErrorCode::invalid, "more than 64 instances on one machine");
  }
  return {};
}

Result<ServeConfig> parse_config(const std::string& yaml, const std::filesystem::path& base) {
  ServeConfig config;
  YAML::Node root;
  try {
    root = YAML::Load(yaml);
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::invalid, "line {}: {}", error.mark.line + 1, error.msg);
  }
  if (root.IsNull()) return config;
  PoolConfig& pool = config.pool;
  bool instances_named = false;
  const Readers instances = {{"prefill", number(pool.prefill, 0, 64)},
                             {"decode", number(pool.decode, 0, 64)},
                             {"unified", number(pool.unified, 0, 64)}};
  const Readers listen = {{"host", string(config.host)}, {"port", number(config.port, 0, 65535)}};
  const Readers top = {
      {"model",
       [&](const YAML::Node& node) -> Status {
         std::string text;
         if (auto status = string(text)(node); !status) return status;
         pool.model = base / text;
         return {};
       }},
      {"served_name", string(pool.served_name)},
      {"fabric", string(pool.fabric)},
      {"threads", number(pool.threads, 0, 1024)},
      {"max_queue", number(pool.max_queue, 1, 1 << 20)},
      {"control_tls", boolean(pool.control_tls)},
      {"kv_memory",
       [&](const YAML::Node& node) -> Status {
         std::string text;
         if (auto status = string(text)(node); !status) return status;
         auto bytes = parse_bytes(text);
         if (!bytes) return pass(bytes.error());
         pool.kv_bytes = *bytes;
         return {};
       }},
      {"instances",
       [&](const YAML::Node& node) -> Status {
         pool.prefill = pool.decode = pool.unified = 0;
         instances_named = true;
         return read_mapping(node, "instances", instances);
       }},
      {"listen", [&](const YAML::Node& node) -> Status { return read_mapping(node, "listen", listen); }},
      {"api_keys",
       [&](const YAML::Node& node) -> Status {
         if (!node.IsSequence()) return fail(ErrorCode::invalid, "must be a list of strings");
         for (const auto& key : node) {
           if (!key.IsScalar() || key.Scalar().empty())
             return fail(ErrorCode::invalid, "must be a list of strings");
           config.api_keys.push_back(key.Scalar());
         }
         return {};
       }},
  };
  try {
    if (auto status = read_mapping(root, "the configuration", top); !status) return pass(status.error());
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::invalid, "line {}: {}", error.mark.line + 1, error.msg);
  }
  if (instances_named) {
    if (auto status = validate(pool); !status) return fail_at("instances", status.error());
  }
  return config;
}

Result<ServeConfig> load_config(const std::filesystem::path& file) {
  std::error_code error;
  const auto size = std::filesystem::file_size(file, error);
  std::ifstream stream(file);
  if (error || !stream) return fail(ErrorCode::not_found, "cannot read the configuration {}", file.string());
  if (size > kMaxFileBytes) return fail(ErrorCode::invalid, "{} is larger than 1 MiB", file.string());
  std::ostringstream text;
  text << stream.rdbuf();
  auto config = parse_config(text.str(), file.parent_path());
  if (!config) return fail_at(file.string(), config.error());
  return config;
}

}  // namespace switchyard::pool
