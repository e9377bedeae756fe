#include "pool/config.h"

#include <algorithm>
#include <set>

#include "base/files.h"
#include "pool/yaml_mapping.h"

namespace switchyard::pool {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr std::size_t kMaxKeys = 4096;
constexpr std::size_t kMaxKeyBytes = 1024;
constexpr std::uint32_t kMaxInstances = 64;
constexpr std::uint32_t kMaxBerths = 64;
constexpr std::string_view kBurstAlone =
    "rate.burst is nothing without rate.per_second above 0: give both, or neither for no limit";

// What is read first and made sense of when all of the file is known.
struct Found {
  YAML::Node models;
  YAML::Node defaults;
  YAML::Node instances;
  std::string model;
  std::string served_name;
};

YamlReader kept_in(YAML::Node& target) {
  return {[&target](const YAML::Node& node) -> Status {
    target.reset(node);
    return {};
  }};
}

YamlReader path_into(std::filesystem::path& target, const std::filesystem::path& base) {
  return {[&target, &base](const YAML::Node& node) -> Status {
    const auto text = scalar(node);
    if (!text) return pass(text.error());
    if (text->empty() || text->size() > kMaxPathBytes)
      return fail(ErrorCode::invalid, "must be a path of 1 to {} bytes", kMaxPathBytes);
    target = base / *text;
    return {};
  }};
}

YamlReader policy_into(schedule::PolicyKind& target) {
  return {[&target](const YAML::Node& node) -> Status {
    const auto text = scalar(node);
    if (!text) return pass(text.error());
    const auto policy = schedule::parse_policy(*text);
    if (!policy) return pass(policy.error());
    target = *policy;
    return {};
  }};
}

YamlReader duration_into(Nanos& target, Nanos least, Nanos most) {
  return {[&target, least, most](const YAML::Node& node) -> Status {
    const auto text = scalar(node);
    if (!text) return pass(text.error());
    const auto value = parse_duration(*text);
    if (!value) return pass(value.error());
    if (*value < least || *value > most)
      return fail(ErrorCode::invalid, "'{}' is not from {} s to {} s", *text, to_seconds(least),
                  to_seconds(most));
    target = *value;
    return {};
  }};
}

// As a token of an HTTP header.
bool is_in_headers(char c) { return c > ' ' && c < 0x7f; }

// A list that is there but empty would open the server, which nobody means who writes it.
YamlReader keys_into(std::vector<std::string>& target, const char* name) {
  return {
      [&target, name](const YAML::Node& node) -> Status {
        std::set<std::string> seen;
        auto read = read_sequence(node, name, kMaxKeys, [&](const YAML::Node& key) -> Status {
          if (!key.IsScalar() || key.Scalar().empty() || key.Scalar().size() > kMaxKeyBytes) {
            return fail_in_line(
                key, name,
                {ErrorCode::invalid, fmt::format("a key must be a string of 1 to {} bytes", kMaxKeyBytes)});
          }
          if (!std::all_of(key.Scalar().begin(), key.Scalar().end(), is_in_headers)) {
            return fail_in_line(key, name,
                                {ErrorCode::invalid,
                                 "a key must be of visible ASCII characters, without blanks: clients send it "
                                 "in a header"});
          }
          if (!seen.insert(key.Scalar()).second)
            return fail_in_line(key, name, {ErrorCode::invalid, "this key is there twice"});
          target.push_back(key.Scalar());
          return {};
        });
        if (read && target.empty()) {
          return fail_in_line(node, name,
                              {ErrorCode::invalid,
                               "the list is empty; leave the key out to ask nobody for one, or name keys"});
        }
        return read;
      },
      false};
}

YamlReader setting_into(ModelSettings& settings, std::string_view name) {
  return {[&settings, name](const YAML::Node& node) -> Status {
    const auto text = scalar(node);
    if (!text) return pass(text.error());
    return set(settings, name, *text);
  }};
}

// The keys of one model but for name and path.
YamlReaders settings_into(ModelSettings& settings, const std::string& where) {
  YamlReaders readers;
  YamlReaders rate;
  constexpr std::string_view kRate = "rate.";
  for (const auto name : setting_names()) {
    if (name.starts_with(kRate)) {
      rate.emplace(name.substr(kRate.size()), setting_into(settings, name));
    } else {
      readers.emplace(name, setting_into(settings, name));
    }
  }
  // A rate of 0 is none, which lifts a default's; a burst beside it would say the contrary.
  const auto read_rate = [&settings, name = where + ".rate",
                          rate = std::move(rate)](const YAML::Node& node) -> Status {
    if (auto status = read_mapping(node, name, rate); !status) return status;
    if (!node["burst"] || settings.rate.per_second > 0) return {};
    return fail_in_line(node, name, {ErrorCode::invalid, std::string(kBurstAlone)});
  };
  readers.emplace("rate", YamlReader{read_rate, false});
  return readers;
}

Status read_model(const YAML::Node& node, const std::string& where, const std::filesystem::path& base,
                  const ModelSettings& defaults, std::vector<ModelSettings>& models) {
  ModelSettings settings = defaults;
  auto readers = settings_into(settings, where);
  readers.emplace("name", text_into(settings.id));
  readers.emplace("path", path_into(settings.path, base));
  if (auto status = read_mapping(node, where, readers); !status) return status;
  if (settings.id.empty()) settings.id = default_id(settings.path);
  complete(settings);
  if (auto status = validate(settings); !status) return fail_in_line(node, where, status.error());
  for (const auto& other : models) {
    if (other.id == settings.id) {
      return fail_in_line(
          node, where,
          {ErrorCode::invalid, "there is a model '" + settings.id + "' already; names must differ"});
    }
  }
  models.push_back(std::move(settings));
  return {};
}

Status read_models(const Found& found, const std::filesystem::path& base, ServeConfig& config) {
  if (found.defaults.IsDefined() && !found.defaults.IsNull()) {
    if (auto status = read_mapping(found.defaults, "defaults", settings_into(config.defaults, "defaults"));
        !status) {
      return status;
    }
    complete(config.defaults);
    if (auto status = validate_defaults(config.defaults); !status)
      return fail_in_line(found.defaults, "defaults", status.error());
  }
  if (!found.models.IsDefined() || found.models.IsNull()) {
    if (found.model.empty() && found.served_name.empty()) return {};
    ModelSettings settings = config.defaults;
    if (!found.model.empty()) settings.path = base / found.model;
    settings.id = found.served_name.empty() ? default_id(settings.path) : found.served_name;
    config.pool.models.push_back(std::move(settings));
    return {};
  }
  if (!found.model.empty() || !found.served_name.empty()) {
    return fail_in_line(
        found.models, "models",
        {ErrorCode::invalid, "model and served_name are the short form of it: write one of both"});
  }
  if (found.models.IsSequence() && found.models.size() == 0) {
    return fail_in_line(
        found.models, "models",
        {ErrorCode::invalid, "the list is empty; name models, or leave the key out for the default model"});
  }
  std::size_t index = 0;
  return read_sequence(found.models, "models", kMaxModels, [&](const YAML::Node& node) {
    return read_model(node, fmt::format("models[{}]", index++), base, config.defaults, config.pool.models);
  });
}

YamlReaders admission_into(schedule::AdmissionOptions& admission) {
  return {{"max_waiting", number_into(admission.max_waiting, 1, 1 << 20)},
          {"shed_overload", bool_into(admission.shed_overload)},
          {"attainment", real_into(admission.attainment, 0.01, 1)},
          {"key_rate",
           mapping("admission.key_rate", {{"per_second", real_into(admission.key_rate.per_second, 0, 1e6)},
                                          {"burst", real_into(admission.key_rate.burst, 1, 1e6)}})}};
}

YamlReaders top_level(ServeConfig& config, Found& found, const std::filesystem::path& base) {
  PoolConfig& pool = config.pool;
  return {
      {"model", text_into(found.model)},
      {"served_name", text_into(found.served_name)},
      {"models", kept_in(found.models)},
      {"defaults", kept_in(found.defaults)},
      {"instances", kept_in(found.instances)},
      {"fabric", text_into(pool.fabric)},
      {"threads", number_into(pool.threads, 0, 1024)},
      {"berths", number_into(pool.berths, 1, kMaxBerths)},
      {"berth_memory", bytes_into(pool.berth_bytes)},
      {"kv_memory", bytes_into(pool.kv_bytes)},
      {"host_kv_memory", bytes_into(pool.host_kv_bytes)},
      {"model_cache", bytes_into(pool.cache_bytes)},
      {"policy", policy_into(pool.policy)},
      {"longest_quota",
       duration_into(pool.longest_quota, std::chrono::milliseconds(1), std::chrono::hours(1))},
      {"admission", mapping("admission", admission_into(pool.admission))},
      {"max_queue", number_into(pool.max_queue, 1, 1 << 20)},
      {"control_tls", bool_into(pool.control_tls)},
      {"trace", path_into(pool.trace, base)},
      {"listen",
       mapping("listen", {{"host", text_into(config.host)}, {"port", number_into(config.port, 0, 65535)}})},
      {"api_keys", keys_into(config.api_keys, "api_keys")},
      {"admin_keys", keys_into(config.admin_keys, "admin_keys")},
      {"watch", bool_into(config.watch)},
  };
}

Status read_all(const YAML::Node& root, const std::filesystem::path& base, ServeConfig& config) {
  Found found;
  if (auto status = read_mapping(root, "", top_level(config, found, base)); !status) return status;
  PoolConfig& pool = config.pool;
  if (found.instances.IsDefined() && !found.instances.IsNull()) {
    pool.prefill = pool.decode = pool.unified = 0;
    auto status = read_mapping(found.instances, "instances",
                               {{"prefill", number_into(pool.prefill, 0, kMaxInstances)},
                                {"decode", number_into(pool.decode, 0, kMaxInstances)},
                                {"unified", number_into(pool.unified, 0, kMaxInstances)}});
    if (!status) return status;
  }
  auto& key_rate = pool.admission.key_rate;
  if (key_rate.per_second == 0 && key_rate.burst > 0)
    return fail(ErrorCode::invalid, "admission.key_rate: {}", kBurstAlone);
  if (key_rate.per_second > 0 && key_rate.burst == 0) key_rate.burst = std::max(1.0, key_rate.per_second);
  return read_models(found, base, config);
}

}  // namespace

Status validate(const PoolConfig& config) {
  const std::uint32_t instances = config.prefill + config.decode + config.unified;
  if (instances == 0) {
    return fail(ErrorCode::invalid,
                "instances: there are none; ask for prefill and decode ones, or for unified ones");
  }
  if ((config.prefill == 0) != (config.decode == 0)) {
    return fail(ErrorCode::invalid, "instances: {} prefill and {} decode instances: each needs the other",
                config.prefill, config.decode);
  }
  if (instances > kMaxInstances)
    return fail(ErrorCode::invalid, "instances: {} on one machine; at most {} are allowed", instances,
                kMaxInstances);
  if (config.berths == 0 || config.berths > kMaxBerths)
    return fail(ErrorCode::invalid, "berths is {}; it must be from 1 to {}", config.berths, kMaxBerths);
  if (config.models.size() > kMaxModels)
    return fail(ErrorCode::invalid, "models: {}; at most {} are allowed", config.models.size(), kMaxModels);
  std::set<std::string_view> ids;
  std::size_t pinned = 0;
  for (const auto& model : config.models) {
    if (auto status = validate(model); !status) return status;
    if (!ids.insert(model.id).second)
      return fail(ErrorCode::invalid, "there are two models '{}'; names must differ", model.id);
    if (model.pinned) ++pinned;
  }
  if (!leaves_a_berth(pinned, config.berths)) {
    return fail(ErrorCode::invalid,
                "models: {} are pinned in {} berths; one berth must stay free for the others: pin fewer, or "
                "give more berths",
                pinned, config.berths);
  }
  return {};
}

Result<ServeConfig> parse_config(const std::string& yaml, const std::filesystem::path& base) {
  if (yaml.size() > kMaxFileBytes) return fail(ErrorCode::invalid, "it is larger than 1 MiB");
  auto root = parse_yaml(yaml);
  if (!root) return pass(root.error());
  ServeConfig config;
  if (root->IsNull()) return config;
  try {
    if (auto status = read_all(*root, base, config); !status) return pass(status.error());
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::invalid, "line {}: {}", error.mark.line + 1, error.msg);
  }
  // A model may still be named on the command line; the rest must be sound by itself.
  PoolConfig pool = config.pool;
  std::erase_if(pool.models, [](const ModelSettings& model) { return model.path.empty(); });
  if (auto status = validate(pool); !status) return pass(status.error());
  return config;
}

Result<ServeConfig> load_config(const std::filesystem::path& file) {
  auto text = read_file(file, kMaxFileBytes);
  if (!text) return fail_at("the configuration", text.error());
  auto config = parse_config(*text, file.parent_path());
  if (!config) return fail_at(file.string(), config.error());
  return config;
}

std::vector<std::string> keys_for_restart(const ServeConfig& now, const ServeConfig& wanted) {
  std::vector<std::string> keys;
  const auto compare = [&keys](const char* key, bool same) {
    if (!same) keys.emplace_back(key);
  };
  const PoolConfig& a = now.pool;
  const PoolConfig& b = wanted.pool;
  compare("instances", a.prefill == b.prefill && a.decode == b.decode && a.unified == b.unified);
  compare("fabric", a.fabric == b.fabric);
  compare("threads", a.threads == b.threads);
  compare("berths", a.berths == b.berths);
  compare("berth_memory", a.berth_bytes == b.berth_bytes);
  compare("kv_memory", a.kv_bytes == b.kv_bytes);
  compare("host_kv_memory", a.host_kv_bytes == b.host_kv_bytes);
  compare("model_cache", a.cache_bytes == b.cache_bytes);
  compare("policy", a.policy == b.policy);
  compare("longest_quota", a.longest_quota == b.longest_quota);
  compare("admission", a.admission.max_waiting == b.admission.max_waiting &&
                           a.admission.shed_overload == b.admission.shed_overload &&
                           a.admission.attainment == b.admission.attainment &&
                           a.admission.key_rate == b.admission.key_rate);
  compare("max_queue", a.max_queue == b.max_queue);
  compare("control_tls", a.control_tls == b.control_tls);
  compare("trace", a.trace == b.trace);
  compare("listen", now.host == wanted.host && now.port == wanted.port);
  compare("api_keys", now.api_keys == wanted.api_keys);
  compare("admin_keys", now.admin_keys == wanted.admin_keys);
  compare("watch", now.watch == wanted.watch);
  return keys;
}

}  // namespace switchyard::pool
