#include <algorithm>
#include <array>
#include <limits>

#include "model/checkpoint_parts.h"
#include "model/tensor_names.h"

namespace switchyard::model {
namespace {

// Tokens that end a turn or a text in the vocabularies of known families, besides the one that metadata
// names; llama.cpp ends a generation at any of them too.
constexpr std::array<std::string_view, 7> kEndTokens = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>"};
constexpr std::int64_t kControlToken = 3;  // llama.cpp's LLAMA_TOKEN_TYPE_CONTROL, that is 3 in GGUF

class ConfigReader {
 public:
  explicit ConfigReader(const GgufFile& file) : file_(file), metadata_(file.metadata) {}

  Result<ModelConfig> read(std::string_view name) {
    if (auto status = read_architecture(); !status) return pass(status.error());
    config_.name = printable_name(metadata_.string("general.name").value_or(name));
    for (const auto& step :
         {&ConfigReader::read_sizes, &ConfigReader::read_rope, &ConfigReader::check_unsupported}) {
      if (auto status = (this->*step)(); !status) return pass(status.error());
    }
    config_.rms_epsilon =
        static_cast<float>(metadata_.real(key("attention.layer_norm_rms_epsilon")).value_or(1e-5));
    config_.tied_embeddings = !has_tensor("output.weight");
    config_.qkv_bias = has_tensor("blk.0.attn_q.bias");
    read_end_tokens();
    if (auto status = validate(config_); !status) return pass(status.error());
    return std::move(config_);
  }

 private:
  std::string key(std::string_view rest) const { return fmt::format("{}.{}", architecture_, rest); }

  bool has_tensor(std::string_view name) const {
    return std::ranges::find(file_.tensors, name, &GgufTensor::name) != file_.tensors.end();
  }

  Status read_architecture() {
    const auto name = metadata_.string("general.architecture");
    if (!name) return fail(ErrorCode::corrupt, "the metadata does not name the architecture");
    architecture_ = *name;
    if (architecture_ == "llama") {
      config_.architecture = Architecture::llama;
    } else if (architecture_ == "qwen2") {
      config_.architecture = Architecture::qwen2;
    } else {
      return fail(ErrorCode::unsupported, "architecture '{}' is not known; llama and qwen2 are",
                  architecture_);
    }
    const auto type = metadata_.string("general.type").value_or("model");
    if (type != "model") return fail(ErrorCode::unsupported, "the file holds {}, not a whole model", type);
    if (metadata_.integer("split.count").value_or(1) > 1) {
      return fail(ErrorCode::unsupported,
                  "the model is split over several files; merge them with llama-gguf-split --merge");
    }
    return {};
  }

  Status read_size(std::string_view rest, std::optional<std::uint32_t> otherwise, std::uint32_t& size) {
    const std::string full = key(rest);
    if (!metadata_.values.contains(full) && otherwise) {
      size = *otherwise;
      return {};
    }
    const auto value = metadata_.integer(full);
    if (!value) return fail(ErrorCode::corrupt, "'{}' is missing or not one whole number", full);
    if (*value > std::numeric_limits<std::uint32_t>::max()) {
      return fail(ErrorCode::invalid, "'{}' is {}, which no model has", full, *value);
    }
    size = static_cast<std::uint32_t>(*value);
    return {};
  }

  Status read_sizes() {
    struct Field {
      std::string_view key;
      std::uint32_t* size;
    };
    for (const auto& [name, size] :
         {Field{"block_count", &config_.layers}, Field{"embedding_length", &config_.hidden},
          Field{"attention.head_count", &config_.heads}, Field{"feed_forward_length", &config_.intermediate},
          Field{"context_length", &config_.context}}) {
      if (auto status = read_size(name, std::nullopt, *size); !status) return status;
    }
    if (auto status = read_size("attention.head_count_kv", config_.heads, config_.kv_heads); !status)
      return status;
    const std::uint32_t even = config_.heads == 0 ? 0 : config_.hidden / config_.heads;
    if (auto status = read_size("attention.key_length", even, config_.head_dim); !status) return status;
    std::uint32_t value_length = 0;
    if (auto status = read_size("attention.value_length", config_.head_dim, value_length); !status)
      return status;
    if (value_length != config_.head_dim) {
      return fail(ErrorCode::unsupported, "keys have {} dimensions and values {}; equal ones are known",
                  config_.head_dim, value_length);
    }
    // The embedding's rows, which may be more than the vocabulary's tokens.
    const auto embedding = std::ranges::find(file_.tensors, "token_embd.weight", &GgufTensor::name);
    if (embedding == file_.tensors.end() || embedding->dimensions.size() != 2) {
      return fail(ErrorCode::corrupt, "tensor 'token_embd.weight' is missing or no matrix");
    }
    const std::uint64_t rows = embedding->dimensions[1];
    config_.vocab =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(rows, std::numeric_limits<std::uint32_t>::max()));
    return {};
  }

  Status read_rope() {
    config_.rope_theta = static_cast<float>(metadata_.real(key("rope.freq_base")).value_or(10000.0));
    std::uint32_t rotated = 0;
    if (auto status = read_size("rope.dimension_count", config_.head_dim, rotated); !status) return status;
    if (rotated != config_.head_dim) {
      return fail(ErrorCode::unsupported, "{} of {} dimensions of a head are rotated; all is known", rotated,
                  config_.head_dim);
    }
    // Before there was a type, a linear scale stood alone.
    const auto old_scale = metadata_.real(key("rope.scale_linear"));
    const auto kind = metadata_.string(key("rope.scaling.type")).value_or(old_scale ? "linear" : "none");
    const auto factor = metadata_.real(key("rope.scaling.factor")).value_or(old_scale.value_or(1.0));
    if (kind == "linear") {
      if (factor != 1.0)
        config_.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = static_cast<float>(factor)};
    } else if (kind != "none") {
      return fail(ErrorCode::unsupported, "rope scaling '{}' is not known; none and linear are", kind);
    }
    return {};
  }

  Status check_unsupported() {
    if (metadata_.integer(key("expert_count")).value_or(0) > 0) {
      return fail(ErrorCode::unsupported, "the model is a mixture of experts, which is not computed here");
    }
    // A window that holds the whole context changes nothing.
    const auto window = metadata_.integer(key("attention.sliding_window")).value_or(0);
    if (window > 0 && window < config_.context) {
      return fail(ErrorCode::unsupported,
                  "attention with a sliding window ({} of {} tokens) is not computed here", window,
                  config_.context);
    }
    return {};
  }

  void add_end_token(std::uint64_t token) {
    if (token >= config_.vocab) return;  // the file says so of tokens that it lacks, too
    const auto id = static_cast<std::int32_t>(token);
    if (std::ranges::find(config_.end_tokens, id) == config_.end_tokens.end())
      config_.end_tokens.push_back(id);
  }

  void read_end_tokens() {
    for (const std::string_view name : {"eos", "eot", "eom"}) {
      if (const auto token = metadata_.integer(fmt::format("tokenizer.ggml.{}_token_id", name)))
        add_end_token(*token);
    }
    const auto* tokens = metadata_.strings("tokenizer.ggml.tokens");
    const auto kinds = metadata_.integers("tokenizer.ggml.token_type");
    if (tokens == nullptr || !kinds || kinds->size() != tokens->size()) return;
    for (std::size_t token = 0; token < tokens->size(); ++token) {
      if ((*kinds)[token] == kControlToken &&
          std::ranges::find(kEndTokens, (*tokens)[token]) != kEndTokens.end()) {
        if (config_.end_tokens.size() < 2 * kEndTokens.size()) add_end_token(token);
      }
    }
  }

  const GgufFile& file_;
  const GgufMetadata& metadata_;
  std::string_view architecture_;
  ModelConfig config_;
};

Result<std::vector<Tensor>> read_tensors(const GgufFile& file, std::span<const std::byte> bytes,
                                         const ModelConfig& config) {
  std::vector<Tensor> tensors;
  for (const GgufTensor& entry : file.tensors) {
    const auto name = project_name(NameScheme::gguf, entry.name);
    if (!name) {
      return fail(ErrorCode::unsupported, "tensor '{}' has no place in a model of architecture {}",
                  entry.name, to_string(config.architecture));
    }
    const auto type = dtype_from_ggml(entry.type);
    if (!type) {
      return fail(ErrorCode::unsupported, "tensor '{}' is of type {} ({}), which is not read here",
                  entry.name, ggml_type_name(entry.type), entry.type);
    }
    Tensor tensor{
        .name = *name, .original_name = std::string(entry.name), .type = *type, .shape = {}, .bytes = {}};
    tensor.shape.assign(entry.dimensions.rbegin(), entry.dimensions.rend());
    while (tensor.shape.size() > 2 && tensor.shape.front() == 1) tensor.shape.erase(tensor.shape.begin());
    std::uint64_t blocks = 1;
    for (const std::uint64_t size : entry.dimensions) blocks *= size;
    blocks /= block_values(*type);
    tensor.bytes =
        bytes.subspan(file.data_offset + entry.offset, blocks * block_bytes(*type));  // checked by parse
    const std::string_view part = std::string_view(*name).substr(name->rfind('.') + 1);
    const bool rotated = part == "q" || part == "k" || part == "q_bias" || part == "k_bias";
    if (rotated && config.architecture == Architecture::llama) tensor.interleaved_head_rows = config.head_dim;
    tensors.push_back(std::move(tensor));
  }
  return arrange_tensors(config, std::move(tensors));
}

}  // namespace

Result<CheckpointParts> read_gguf_bytes(std::span<const std::byte> bytes, std::string_view name) {
  auto file = GgufFile::parse(bytes);
  if (!file) return pass(file.error());
  auto config = ConfigReader(*file).read(name);
  if (!config) return pass(config.error());
  auto tensors = read_tensors(*file, bytes, *config);
  if (!tensors) return pass(tensors.error());
  CheckpointParts parts;
  parts.config = std::move(*config);
  parts.tensors = std::move(*tensors);
  parts.format = fmt::format("GGUF v{}", file->version);
  parts.gguf = std::move(file->metadata);
  return parts;
}

Result<CheckpointParts> read_gguf(const std::filesystem::path& path) {
  auto mapping = MappedFile::open(path);
  if (!mapping) return pass(mapping.error());
  auto parts = read_gguf_bytes(mapping->bytes(), path.stem().string());
  if (!parts) return fail_at(path.string(), parts.error());
  parts->files = {path};
  parts->mappings.push_back(std::move(*mapping));
  parts->directory = path.parent_path();
  return parts;
}

}  // namespace switchyard::model
