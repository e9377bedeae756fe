#include "simulate/profile_text.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

namespace switchyard::simulate {
namespace {

std::string milliseconds_text(double value) { return value > 0 ? fmt::format("{:.4f}", value) : ""; }

}  // namespace

std::string table_name(std::string_view name) {
  std::string result;
  for (const char c : name) {
    const bool good = static_cast<unsigned char>(c) >= 32 && c != 127 && c != ',' && c != '"';
    result += good ? c : '_';
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  result.erase(0, result.find_first_not_of(' '));
  return result.empty() ? "model" : result;
}

std::string profile_csv(std::span<const ProfiledModel> models, const std::string& gpu) {
  std::string csv = "model,gpu,input_tokens_per_request,batch,prefill_p50_ms,decode_step_p50_ms\n";
  for (const ProfiledModel& model : models) {
    for (const MeasuredStep& step : model.steps) {
      csv += fmt::format("{},{},{},{},{},{}\n", table_name(model.name), table_name(gpu), step.input_tokens,
                         step.batch, milliseconds_text(step.prefill_ms), milliseconds_text(step.decode_ms));
    }
  }
  return csv;
}

std::string model_map_yaml(std::span<const ProfiledModel> models, const std::string& gpu,
                           const Accelerator& accelerator) {
  YAML::Emitter yaml;
  const auto text = [&](const char* key, const std::string& value) {
    yaml << YAML::Key << key << YAML::Value << YAML::DoubleQuoted << value;
  };
  const auto number = [&](const char* key, std::uint64_t value) {
    yaml << YAML::Key << key << YAML::Value << value;
  };
  yaml << YAML::Comment("measured by `switchyard profile`; for --models of `switchyard simulate`");
  yaml << YAML::BeginMap << YAML::Key << "accelerators" << YAML::Value << YAML::BeginSeq << YAML::BeginMap;
  text("name", table_name(gpu));
  number("memory", accelerator.memory_bytes);
  number("link", static_cast<std::uint64_t>(accelerator.link_bytes_per_second));
  yaml << YAML::EndMap << YAML::EndSeq << YAML::Key << "models" << YAML::Value << YAML::BeginSeq;
  const auto entry = [&](const std::string& name, const ProfiledModel& model) {
    yaml << YAML::BeginMap;
    text("name", name);
    text("profile", table_name(model.name));
    number("bytes", model.bytes);
    number("kv_bytes_per_token", model.kv_bytes_per_token);
  };
  for (const ProfiledModel& model : models) {
    entry(table_name(model.name), model);
    yaml << YAML::Key << "rate" << YAML::Value << "0.1" << YAML::EndMap;
  }
  // Workloads have names of their own: they are taken for the first model.
  if (!models.empty()) {
    entry("*", models.front());
    yaml << YAML::EndMap;
  }
  yaml << YAML::EndSeq << YAML::EndMap;
  return std::string(yaml.c_str(), yaml.size()) + "\n";
}

}  // namespace switchyard::simulate
