#include "model/config.h"

#include <cmath>

#include "base/bytes.h"
#include "model/unicode.h"

namespace switchyard::model {
namespace {

// Far above every published model, far below what makes a product of any four of them overflow 64 bits
// together with an element's size.
constexpr std::uint32_t kMaxLayers = 1024;
constexpr std::uint32_t kMaxWidth = 1u << 18;  // hidden, intermediate (times 4)
constexpr std::uint32_t kMaxHeads = 4096;
constexpr std::uint32_t kMaxHeadDim = 1024;
constexpr std::uint32_t kMaxVocab = 1u << 22;
constexpr std::uint32_t kMaxContext = 1u << 28;
constexpr std::size_t kMaxEndTokens = 64;
constexpr std::size_t kMaxName = 1024;

Status in_range(std::string_view field, std::uint64_t value, std::uint64_t highest) {
  if (value >= 1 && value <= highest) return {};
  return fail(ErrorCode::invalid, "{} is {}; it must be between 1 and {}", field, value, highest);
}

Status positive(std::string_view field, float value) {
  if (std::isfinite(value) && value > 0) return {};
  return fail(ErrorCode::invalid, "{} is {}; it must be a positive number", field, value);
}

Status validate(const RopeScaling& scaling) {
  if (scaling.kind == RopeScaling::Kind::none) return {};
  if (auto status = positive("rope scaling factor", scaling.factor); !status) return status;
  if (scaling.kind == RopeScaling::Kind::linear) return {};
  if (scaling.kind != RopeScaling::Kind::llama3) {
    return fail(ErrorCode::invalid, "rope scaling kind {} is not known",
                static_cast<std::uint32_t>(scaling.kind));
  }
  if (auto status = positive("rope scaling low_freq_factor", scaling.low_frequency_factor); !status)
    return status;
  if (auto status = positive("rope scaling high_freq_factor", scaling.high_frequency_factor); !status)
    return status;
  if (scaling.high_frequency_factor <= scaling.low_frequency_factor) {
    return fail(ErrorCode::invalid,
                "rope scaling high_freq_factor is {}; it must be above low_freq_factor, {}",
                scaling.high_frequency_factor, scaling.low_frequency_factor);
  }
  return in_range("rope scaling original_max_position_embeddings", scaling.original_context, kMaxContext);
}

}  // namespace

std::string_view to_string(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "llama";
    case Architecture::qwen2:
      return "qwen2";
  }
  return "unknown";
}

std::string printable_name(std::string_view name) {
  constexpr std::size_t kMaxPrintable = 200;
  std::string printable;
  for (std::size_t at = 0; at < name.size();) {
    const Utf8Step step = utf8_step(name, at);
    at += step.length;
    const bool control = step.code < 0x20 || (step.code >= 0x7f && step.code < 0xa0);
    std::string character;
    if (!control) utf8_append(character, step.code);
    if (printable.size() + character.size() > kMaxPrintable) break;
    printable += character;
  }
  return printable;
}

Status validate(const ModelConfig& config) {
  if (config.architecture != Architecture::llama && config.architecture != Architecture::qwen2) {
    return fail(ErrorCode::invalid, "architecture number {} is not known",
                static_cast<std::uint32_t>(config.architecture));
  }
  if (config.name.size() > kMaxName)
    return fail(ErrorCode::invalid, "the model's name is longer than {} bytes", kMaxName);
  const struct {
    std::string_view field;
    std::uint32_t value;
    std::uint32_t highest;
  } ranges[] = {
      {"layers", config.layers, kMaxLayers},       {"hidden size", config.hidden, kMaxWidth},
      {"heads", config.heads, kMaxHeads},          {"key/value heads", config.kv_heads, kMaxHeads},
      {"head size", config.head_dim, kMaxHeadDim}, {"intermediate size", config.intermediate, 4 * kMaxWidth},
      {"vocabulary", config.vocab, kMaxVocab},     {"context", config.context, kMaxContext},
  };
  for (const auto& range : ranges) {
    if (auto status = in_range(range.field, range.value, range.highest); !status) return status;
  }
  if (config.heads % config.kv_heads != 0) {
    return fail(ErrorCode::invalid, "{} heads cannot share {} key/value heads evenly", config.heads,
                config.kv_heads);
  }
  if (config.head_dim % 2 != 0) {
    return fail(ErrorCode::invalid, "head size {} is odd; rotary embedding needs pairs", config.head_dim);
  }
  if (auto status = positive("rms epsilon", config.rms_epsilon); !status) return status;
  if (auto status = positive("rope theta", config.rope_theta); !status) return status;
  if (auto status = validate(config.rope_scaling); !status) return status;
  if (config.end_tokens.size() > kMaxEndTokens) {
    return fail(ErrorCode::invalid, "{} end tokens; at most {} are taken", config.end_tokens.size(),
                kMaxEndTokens);
  }
  for (const std::int32_t token : config.end_tokens) {
    if (token < 0 || static_cast<std::uint32_t>(token) >= config.vocab) {
      return fail(ErrorCode::invalid, "end token {} is outside of the vocabulary of {}", token, config.vocab);
    }
  }
  return {};
}

std::vector<std::byte> serialize(const ModelConfig& config) {
  ByteWriter writer;
  writer.write(config.architecture);
  writer.write_string(config.name);
  for (const std::uint32_t size : {config.layers, config.hidden, config.heads, config.kv_heads,
                                   config.head_dim, config.intermediate, config.vocab, config.context}) {
    writer.write(size);
  }
  writer.write(config.rms_epsilon);
  writer.write(config.rope_theta);
  writer.write(config.rope_scaling.kind);
  writer.write(config.rope_scaling.factor);
  writer.write(config.rope_scaling.low_frequency_factor);
  writer.write(config.rope_scaling.high_frequency_factor);
  writer.write(config.rope_scaling.original_context);
  writer.write<std::uint8_t>(config.tied_embeddings);
  writer.write<std::uint8_t>(config.qkv_bias);
  writer.write_vector<std::int32_t>(config.end_tokens);
  return writer.take();
}

Result<ModelConfig> parse_config(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  ModelConfig config;
  config.architecture = reader.read<Architecture>();
  config.name = reader.read_string();
  for (std::uint32_t* size : {&config.layers, &config.hidden, &config.heads, &config.kv_heads,
                              &config.head_dim, &config.intermediate, &config.vocab, &config.context}) {
    *size = reader.read<std::uint32_t>();
  }
  config.rms_epsilon = reader.read<float>();
  config.rope_theta = reader.read<float>();
  config.rope_scaling.kind = reader.read<RopeScaling::Kind>();
  config.rope_scaling.factor = reader.read<float>();
  config.rope_scaling.low_frequency_factor = reader.read<float>();
  config.rope_scaling.high_frequency_factor = reader.read<float>();
  config.rope_scaling.original_context = reader.read<std::uint32_t>();
  config.tied_embeddings = reader.read<std::uint8_t>() != 0;
  config.qkv_bias = reader.read<std::uint8_t>() != 0;
  config.end_tokens = reader.read_vector<std::int32_t>();
  if (!reader.finished())
    return fail(ErrorCode::corrupt, "the model's configuration is truncated or too long");
  if (auto status = validate(config); !status) return fail_at("the model's configuration", status.error());
  return config;
}

}  // namespace switchyard::model
