#include "model/describe.h"

#include <fmt/ranges.h>

#include "base/units.h"
#include "model/image_file.h"
#include "model/image_plan.h"
#include "model/kv_layout.h"

namespace switchyard::model {
namespace {

std::string_view to_string(TokenizerSpec::Algorithm algorithm) {
  switch (algorithm) {
    case TokenizerSpec::Algorithm::byte_level_bpe:
      return "byte-level BPE";
    case TokenizerSpec::Algorithm::sentencepiece_bpe:
      return "SentencePiece BPE";
  }
  return "unknown";
}

std::string_view to_string(RopeScaling::Kind kind) {
  switch (kind) {
    case RopeScaling::Kind::none:
      return "none";
    case RopeScaling::Kind::linear:
      return "linear";
    case RopeScaling::Kind::llama3:
      return "llama3";
  }
  return "unknown";
}

// Parameters of a model as they are told: "135M", "7.24B".
std::string format_count(std::uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f}B", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.1f}M", value / 1e6);
  return fmt::format("{}", count);
}

Result<std::uint64_t> image_bytes(const Checkpoint& checkpoint) {
  const auto plan = plan_image(checkpoint.config(), checkpoint.tensors());
  if (!plan) return pass(plan.error());
  return planned_bytes(*plan);
}

}  // namespace

Result<CheckpointDescription> describe(const Checkpoint& checkpoint) {
  CheckpointDescription description;
  description.format = checkpoint.format();
  for (const auto& file : checkpoint.files()) description.files.push_back(file.string());
  description.config = checkpoint.config();
  for (const Tensor& tensor : checkpoint.tensors()) {
    const std::uint64_t values = tensor.rows() * tensor.columns();
    TensorTypeSummary& type = description.types[std::string(to_string(tensor.type))];
    ++type.tensors;
    type.values += values;
    type.bytes += tensor.bytes.size();
    description.parameters += values;
    description.tensor_bytes += tensor.bytes.size();
  }
  const TokenizerSpec& tokenizer = checkpoint.tokenizer();
  description.tokenizer = to_string(tokenizer.algorithm);
  description.tokens = tokenizer.tokens.size();
  description.chat_template = !tokenizer.chat_template.empty();
  const auto bytes = image_bytes(checkpoint);
  if (!bytes) return pass(bytes.error());
  description.image_bytes = *bytes;
  const ModelConfig& config = description.config;
  const KvLayout layout{.layers = config.layers, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  description.kv_bytes_per_token = layout.block_bytes() / kBlockTokens;
  return description;
}

std::string CheckpointDescription::to_text() const {
  std::string text;
  const auto line = [&](std::string_view label, const std::string& value) {
    text += fmt::format("{:<14}{}\n", label, value);
  };
  line("model", config.name);
  line("format", format);
  for (const std::string& file : files) line("file", file);
  line("architecture", std::string(model::to_string(config.architecture)));
  line("parameters", fmt::format("{} ({})", format_count(parameters), parameters));
  line("layers",
       fmt::format("{} of width {}, feed-forward {}", config.layers, config.hidden, config.intermediate));
  line("attention", fmt::format("{} heads of {}, {} for keys and values{}", config.heads, config.head_dim,
                                config.kv_heads, config.qkv_bias ? ", with biases" : ""));
  line("rotary", fmt::format("theta {}, scaling {}", config.rope_theta, to_string(config.rope_scaling.kind)));
  line("context", fmt::format("{} tokens", config.context));
  line("vocabulary",
       fmt::format("{} rows{}", config.vocab, config.tied_embeddings ? ", embeddings tied" : ""));
  line("tokenizer", fmt::format("{}, {} tokens, {}", tokenizer, tokens,
                                chat_template ? "with a chat template" : "without a chat template"));
  line("ends at", fmt::format("token {}", fmt::join(config.end_tokens, ", ")));
  for (const auto& [name, type] : types) {
    line("tensors",
         fmt::format("{:<5} {:>5} {:>12}  {:.2f} bits a value", name, type.tensors, format_bytes(type.bytes),
                     8.0 * static_cast<double>(type.bytes) / static_cast<double>(type.values)));
  }
  line("image", fmt::format("{} in memory", format_bytes(image_bytes)));
  line("KV", fmt::format("{} a token, {} for the whole context", format_bytes(kv_bytes_per_token),
                         format_bytes(kv_bytes_per_token * config.context)));
  return text;
}

nlohmann::json CheckpointDescription::to_json() const {
  nlohmann::json by_type = nlohmann::json::object();
  for (const auto& [name, type] : types) {
    by_type[name] = {{"tensors", type.tensors}, {"values", type.values}, {"bytes", type.bytes}};
  }
  const RopeScaling& rope = config.rope_scaling;
  nlohmann::json scaling = {{"kind", to_string(rope.kind)}};
  if (rope.kind != RopeScaling::Kind::none) scaling["factor"] = rope.factor;
  if (rope.kind == RopeScaling::Kind::llama3) {
    scaling["low_frequency_factor"] = rope.low_frequency_factor;
    scaling["high_frequency_factor"] = rope.high_frequency_factor;
    scaling["original_context"] = rope.original_context;
  }
  return {{"name", config.name},
          {"format", format},
          {"files", files},
          {"architecture", model::to_string(config.architecture)},
          {"parameters", parameters},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"intermediate", config.intermediate},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"qkv_bias", config.qkv_bias},
          {"rms_epsilon", config.rms_epsilon},
          {"rope_theta", config.rope_theta},
          {"rope_scaling", scaling},
          {"context", config.context},
          {"vocabulary", config.vocab},
          {"tied_embeddings", config.tied_embeddings},
          {"end_tokens", config.end_tokens},
          {"tokenizer", {{"kind", tokenizer}, {"tokens", tokens}, {"chat_template", chat_template}}},
          {"tensor_bytes", tensor_bytes},
          {"types", by_type},
          {"image_bytes", image_bytes},
          {"kv_bytes_per_token", kv_bytes_per_token}};
}

}  // namespace switchyard::model
