#include "model/hf_config.h"

#include <limits>

#include "model/bounded_json.h"

namespace switchyard::model {
namespace {

using nlohmann::json;

Result<Architecture> architecture_of(const json& config) {
  const auto found = config.find("architectures");
  if (found == config.end() || !found->is_array() || found->size() != 1 || !found->front().is_string()) {
    return fail(ErrorCode::corrupt, "'architectures' must name one architecture");
  }
  const auto& name = found->front().get_ref<const std::string&>();
  if (name == "LlamaForCausalLM" || name == "MistralForCausalLM") return Architecture::llama;
  if (name == "Qwen2ForCausalLM") return Architecture::qwen2;
  return fail(ErrorCode::unsupported,
              "architecture '{}' is not known; LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM are",
              name);
}

// Settings that would change the numbers and are not computed here.
Status check_unsupported(const json& config, Architecture architecture) {
  const auto is_set = [&](std::string_view key) {
    const auto found = config.find(key);
    return found != config.end() && !found->is_null();
  };
  if (is_set("quantization_config")) {
    return fail(ErrorCode::unsupported,
                "the safetensors are quantised (quantization_config); use the plain ones or a GGUF file");
  }
  auto activation = json_string(config, "hidden_act");
  if (!activation) return pass(activation.error());
  if (activation->value_or("silu") != "silu") {
    return fail(ErrorCode::unsupported, "activation '{}' is not known; silu is", **activation);
  }
  for (const std::string_view key : {"attention_bias", "mlp_bias"}) {
    auto bias = json_boolean(config, key);
    if (!bias) return pass(bias.error());
    if (bias->value_or(false))
      return fail(ErrorCode::unsupported, "'{}' is set, which is not computed here", key);
  }
  auto rotary = json_number(config, "partial_rotary_factor");
  if (!rotary) return pass(rotary.error());
  if (rotary->value_or(1.0) != 1.0)
    return fail(ErrorCode::unsupported, "partial_rotary_factor is {}", **rotary);

  // Qwen2 names a window even where it does not use it. One that holds the whole context changes nothing.
  auto uses_window = json_boolean(config, "use_sliding_window");
  if (!uses_window) return pass(uses_window.error());
  auto window = json_integer(config, "sliding_window");
  if (!window) return pass(window.error());
  auto context = json_integer(config, "max_position_embeddings");
  if (!context) return pass(context.error());
  const bool used = uses_window->value_or(architecture != Architecture::qwen2) && *window;
  if (used && **window < context->value_or(0)) {
    return fail(ErrorCode::unsupported,
                "attention with a sliding window ({} of {} tokens) is not computed here", **window,
                **context);
  }
  if (const auto types = config.find("layer_types"); types != config.end() && types->is_array()) {
    for (const json& type : *types) {
      if (type != "full_attention") {
        return fail(ErrorCode::unsupported, "layer_types has {}; full_attention alone is known", type.dump());
      }
    }
  }
  return {};
}

Result<std::uint32_t> size_of(const json& config, std::string_view key,
                              std::optional<std::uint32_t> otherwise = {}) {
  auto value = json_integer(config, key);
  if (!value) return pass(value.error());
  if (!*value) {
    if (otherwise) return *otherwise;
    return fail(ErrorCode::corrupt, "'{}' is missing", key);
  }
  if (**value > std::numeric_limits<std::uint32_t>::max()) {
    return fail(ErrorCode::invalid, "'{}' is {}, which no model has", key, **value);
  }
  return static_cast<std::uint32_t>(**value);
}

Status read_sizes(const json& config, ModelConfig& model) {
  struct Field {
    std::string_view key;
    std::uint32_t* value;
  };
  for (const auto& [key, value] :
       {Field{"num_hidden_layers", &model.layers}, Field{"hidden_size", &model.hidden},
        Field{"num_attention_heads", &model.heads}, Field{"intermediate_size", &model.intermediate},
        Field{"vocab_size", &model.vocab}, Field{"max_position_embeddings", &model.context}}) {
    auto size = size_of(config, key);
    if (!size) return pass(size.error());
    *value = *size;
  }
  auto kv_heads = size_of(config, "num_key_value_heads", model.heads);
  if (!kv_heads) return pass(kv_heads.error());
  model.kv_heads = *kv_heads;
  const std::uint32_t even = model.heads == 0 ? 0 : model.hidden / model.heads;
  auto head_dim = size_of(config, "head_dim", even);
  if (!head_dim) return pass(head_dim.error());
  model.head_dim = *head_dim;
  return {};
}

Status read_number(const json& object, std::string_view key, float& value) {
  auto number = json_number(object, key);
  if (!number) return pass(number.error());
  if (*number) value = static_cast<float>(**number);
  return {};
}

// "rope_theta" and "rope_scaling" of old, or both in "rope_parameters" as transformers 5 writes them.
Status read_rope(const json& config, ModelConfig& model) {
  if (auto status = read_number(config, "rope_theta", model.rope_theta); !status) return status;
  const auto object_at = [&](std::string_view key) -> const json* {
    const auto found = config.find(key);
    return found != config.end() && !found->is_null() ? &*found : nullptr;
  };
  const json* scaling = object_at("rope_parameters");
  if (scaling == nullptr) scaling = object_at("rope_scaling");
  if (scaling == nullptr) return {};
  if (!scaling->is_object()) return fail(ErrorCode::corrupt, "rope_scaling is not an object");
  for (const json& setting : *scaling) {
    if (setting.is_object())
      return fail(ErrorCode::unsupported, "rope_parameters that differ between layers");
  }
  if (auto status = read_number(*scaling, "rope_theta", model.rope_theta); !status) return status;
  auto kind = json_string(*scaling, "rope_type");
  if (!kind) return pass(kind.error());
  if (!*kind) kind = json_string(*scaling, "type");
  if (!kind) return pass(kind.error());
  const std::string name = kind->value_or("default");
  RopeScaling& rope = model.rope_scaling;
  if (name == "default") return {};
  if (name == "linear") {
    rope.kind = RopeScaling::Kind::linear;
  } else if (name == "llama3") {
    rope.kind = RopeScaling::Kind::llama3;
  } else {
    return fail(ErrorCode::unsupported, "rope scaling '{}' is not known; default, linear and llama3 are",
                name);
  }
  if (!scaling->contains("factor")) return fail(ErrorCode::corrupt, "rope scaling lacks its factor");
  if (auto status = read_number(*scaling, "factor", rope.factor); !status) return status;
  if (rope.kind == RopeScaling::Kind::linear) return {};
  if (auto status = read_number(*scaling, "low_freq_factor", rope.low_frequency_factor); !status)
    return status;
  if (auto status = read_number(*scaling, "high_freq_factor", rope.high_frequency_factor); !status)
    return status;
  auto original = size_of(*scaling, "original_max_position_embeddings");
  if (!original) return pass(original.error());
  rope.original_context = *original;
  return {};
}

// eos_token_id: a number or a list.
Result<std::vector<std::int32_t>> end_tokens(const json& object) {
  std::vector<std::int32_t> tokens;
  const auto found = object.find("eos_token_id");
  if (found == object.end() || found->is_null()) return tokens;
  const json list = found->is_array() ? *found : json::array({*found});
  for (const json& token : list) {
    if (!token.is_number_unsigned() ||
        token.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
      return fail(ErrorCode::corrupt, "'eos_token_id' must be a token or a list of tokens");
    }
    tokens.push_back(token.get<std::int32_t>());
  }
  return tokens;
}

}  // namespace

Result<ModelConfig> parse_hf_config(std::string_view config_json, std::string_view generation_json) {
  const auto config = parse_json_object(config_json);
  if (!config) return fail_at("config.json", config.error());
  const auto in_config = [](const Error& error) { return fail_at("config.json", error); };
  ModelConfig model;
  const auto architecture = architecture_of(*config);
  if (!architecture) return in_config(architecture.error());
  model.architecture = *architecture;
  model.qkv_bias = model.architecture == Architecture::qwen2;
  if (auto status = check_unsupported(*config, *architecture); !status) return in_config(status.error());
  if (auto status = read_sizes(*config, model); !status) return in_config(status.error());
  model.rms_epsilon = 1e-6f;  // the default of all three architectures in transformers
  if (auto status = read_number(*config, "rms_norm_eps", model.rms_epsilon); !status)
    return in_config(status.error());
  if (auto status = read_rope(*config, model); !status) return in_config(status.error());
  auto tied = json_boolean(*config, "tie_word_embeddings");
  if (!tied) return in_config(tied.error());
  model.tied_embeddings = tied->value_or(false);
  auto name = json_string(*config, "_name_or_path");
  if (name && *name) model.name = printable_name(**name);

  // What generation_config.json says wins, as in transformers.
  if (!generation_json.empty()) {
    const auto generation = parse_json_object(generation_json);
    if (!generation) return fail_at("generation_config.json", generation.error());
    auto tokens = end_tokens(*generation);
    if (!tokens) return fail_at("generation_config.json", tokens.error());
    model.end_tokens = std::move(*tokens);
  }
  if (model.end_tokens.empty()) {
    auto tokens = end_tokens(*config);
    if (!tokens) return in_config(tokens.error());
    model.end_tokens = std::move(*tokens);
  }
  if (auto status = validate(model); !status) return in_config(status.error());
  return model;
}

}  // namespace switchyard::model
