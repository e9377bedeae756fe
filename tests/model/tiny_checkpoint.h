// Small random checkpoints with a working tokenizer, so that tests need no download.
//
// write_tiny_gguf() and write_tiny_safetensors() of the same TinyModel with a plain type hold the same
// numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/dtype.h"
#include "model/gguf_builder.h"
#include "model/tensor_names.h"
#include "model/tiny_tensors.h"
#include "model/tiny_vocabulary.h"

namespace switchyard::model {

struct TinyModel {
  ModelConfig config = {.architecture = Architecture::llama,
                        .name = "tiny",
                        .layers = 2,
                        .hidden = 64,
                        .heads = 4,
                        .kv_heads = 2,
                        .head_dim = 16,
                        .intermediate = 96,
                        .vocab = 320,  // at least kTinyTokens
                        .context = 512,
                        .tied_embeddings = true,
                        .end_tokens = {258, 256}};
  DType type = DType::f32;            // of matrices; vectors are f32 in GGUF
  DType embedding_type = DType::f32;  // of token_embedding and output
  std::uint64_t seed = 1;

  // Sizes that a type of 256 values to a block divides.
  static TinyModel of_type(DType type, Architecture architecture = Architecture::llama) {
    TinyModel model;
    model.type = type;
    model.embedding_type = type;
    model.config.architecture = architecture;
    model.config.qkv_bias = architecture == Architecture::qwen2;
    if (block_values(type) == 256) {
      model.config.hidden = 256;
      model.config.head_dim = 64;
      model.config.intermediate = 512;
    }
    return model;
  }
};

// What the tensor's name is in the format of the scheme.
inline std::string tiny_original_name(NameScheme scheme, std::string_view name) {
  static constexpr std::string_view kNames[][3] = {
      {"token_embedding", "token_embd.weight", "model.embed_tokens.weight"},
      {"output_norm", "output_norm.weight", "model.norm.weight"},
      {"output", "output.weight", "lm_head.weight"},
      {"attention_norm", "attn_norm.weight", "input_layernorm.weight"},
      {"attention.q", "attn_q.weight", "self_attn.q_proj.weight"},
      {"attention.k", "attn_k.weight", "self_attn.k_proj.weight"},
      {"attention.v", "attn_v.weight", "self_attn.v_proj.weight"},
      {"attention.q_bias", "attn_q.bias", "self_attn.q_proj.bias"},
      {"attention.k_bias", "attn_k.bias", "self_attn.k_proj.bias"},
      {"attention.v_bias", "attn_v.bias", "self_attn.v_proj.bias"},
      {"attention.output", "attn_output.weight", "self_attn.o_proj.weight"},
      {"ffn_norm", "ffn_norm.weight", "post_attention_layernorm.weight"},
      {"ffn.gate", "ffn_gate.weight", "mlp.gate_proj.weight"},
      {"ffn.up", "ffn_up.weight", "mlp.up_proj.weight"},
      {"ffn.down", "ffn_down.weight", "mlp.down_proj.weight"}};
  std::string layer;
  if (name.starts_with("layers.")) {
    const auto dot = name.find('.', 7);
    layer = (scheme == NameScheme::gguf ? "blk." : "model.layers.") + std::string(name.substr(7, dot - 6));
    name.remove_prefix(dot + 1);
  }
  for (const auto& row : kNames) {
    if (row[0] == name) return layer + std::string(row[scheme == NameScheme::gguf ? 1 : 2]);
  }
  return {};
}

inline bool is_tiny_embedding(std::string_view name) { return name == "token_embedding" || name == "output"; }

// Bytes of a tensor of `model` in `type`, rows in the order of the file.
inline std::vector<std::byte> tiny_tensor(const TinyModel& model, const ExpectedTensor& tensor, DType type,
                                          std::uint32_t interleaved_head_rows) {
  const std::uint64_t rows = tensor.shape.front();
  const std::uint64_t columns = tensor.shape.size() == 2 ? tensor.shape.back() : 1;
  if (block_values(type) != 1) {
    TinyRandom random(model.seed, tensor.name);
    const float amplitude = std::sqrt(3.0f / static_cast<float>(columns));
    return tiny_blocks(type, random, rows * columns / block_values(type), amplitude);
  }
  const std::vector<float> values = tiny_values(model.seed, tensor.name, rows, columns);
  std::vector<float> stored(values.size());
  for (std::uint64_t row = 0; row < rows; ++row) {
    const auto from = values.begin() + static_cast<std::ptrdiff_t>(row * columns);
    const std::uint64_t place = stored_row(interleaved_head_rows, row) * columns;
    std::copy(from, from + static_cast<std::ptrdiff_t>(columns),
              stored.begin() + static_cast<std::ptrdiff_t>(place));
  }
  return tiny_bytes(type, stored);
}

inline std::uint32_t ggml_number(DType type) {
  for (std::uint32_t number = 0; number < 64; ++number) {
    if (dtype_from_ggml(number) == type) return number;
  }
  return 0;
}

// The file's builder, so that a test may add to it or spoil it.
inline GgufBuilder tiny_gguf(const TinyModel& model) {
  const ModelConfig& config = model.config;
  const std::string arch(to_string(config.architecture));
  GgufBuilder file;
  file.string("general.architecture", arch).string("general.name", config.name);
  file.number(arch + ".block_count", config.layers).number(arch + ".embedding_length", config.hidden);
  file.number(arch + ".attention.head_count", config.heads);
  file.number(arch + ".attention.head_count_kv", config.kv_heads);
  file.number(arch + ".attention.key_length", config.head_dim);
  file.number(arch + ".attention.value_length", config.head_dim);
  file.number(arch + ".feed_forward_length", config.intermediate)
      .number(arch + ".context_length", config.context);
  file.number(arch + ".attention.layer_norm_rms_epsilon", config.rms_epsilon);
  file.number(arch + ".rope.freq_base", config.rope_theta);
  if (config.rope_scaling.kind == RopeScaling::Kind::linear) {
    file.string(arch + ".rope.scaling.type", "linear")
        .number(arch + ".rope.scaling.factor", config.rope_scaling.factor);
  }
  const TinyVocabulary vocabulary = tiny_vocabulary();
  file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "smollm");
  file.strings("tokenizer.ggml.tokens", vocabulary.tokens)
      .numbers("tokenizer.ggml.token_type", vocabulary.kinds);
  file.strings("tokenizer.ggml.merges", vocabulary.merges);
  file.number("tokenizer.ggml.bos_token_id", 257u).number("tokenizer.ggml.eos_token_id", 258u);
  file.boolean("tokenizer.ggml.add_bos_token", false);
  file.string("tokenizer.chat_template", kTinyChatTemplate);
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    if (!tensor.required) continue;
    const bool matrix = tensor.shape.size() == 2;
    const DType type = !matrix                          ? DType::f32
                       : is_tiny_embedding(tensor.name) ? model.embedding_type
                                                        : model.type;
    const std::string part = tensor.name.substr(tensor.name.rfind('.') + 1);
    const bool rotated = part == "q" || part == "k" || part == "q_bias" || part == "k_bias";
    const bool interleaved = rotated && config.architecture == Architecture::llama;
    file.tensor(tiny_original_name(NameScheme::gguf, tensor.name),
                {tensor.shape.rbegin(), tensor.shape.rend()}, ggml_number(type),
                tiny_tensor(model, tensor, type, interleaved ? config.head_dim : 0));
  }
  return file;
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}
inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}

inline void write_tiny_gguf(const std::filesystem::path& path, const TinyModel& model) {
  write_file(path, tiny_gguf(model).build());
}

// A safetensors file of named entries {"dtype", "shape"} and their bytes.
inline std::vector<std::byte> build_safetensors(
    const std::vector<std::pair<std::string, nlohmann::json>>& entries,
    const std::vector<std::vector<std::byte>>& data) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    header[entries[i].first] = entries[i].second;
    header[entries[i].first]["data_offsets"] = {offset, offset + data[i].size()};
    offset += data[i].size();
  }
  const std::string text = header.dump();
  ByteWriter file;
  file.write<std::uint64_t>(text.size());
  file.write_bytes(std::as_bytes(std::span(text)));
  for (const auto& bytes : data) file.write_bytes(bytes);
  return file.take();
}

inline nlohmann::json tiny_hf_config(const ModelConfig& config) {
  const bool llama = config.architecture == Architecture::llama;
  nlohmann::json json = {{"architectures", {llama ? "LlamaForCausalLM" : "Qwen2ForCausalLM"}},
                         {"model_type", to_string(config.architecture)},
                         {"num_hidden_layers", config.layers},
                         {"hidden_size", config.hidden},
                         {"num_attention_heads", config.heads},
                         {"num_key_value_heads", config.kv_heads},
                         {"head_dim", config.head_dim},
                         {"intermediate_size", config.intermediate},
                         {"vocab_size", config.vocab},
                         {"max_position_embeddings", config.context},
                         {"rms_norm_eps", config.rms_epsilon},
                         {"rope_theta", config.rope_theta},
                         {"hidden_act", "silu"},
                         {"tie_word_embeddings", config.tied_embeddings},
                         {"eos_token_id", config.end_tokens},
                         {"_name_or_path", config.name}};
  const RopeScaling& rope = config.rope_scaling;
  if (rope.kind == RopeScaling::Kind::linear)
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", rope.factor}};
  if (rope.kind == RopeScaling::Kind::llama3) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", rope.factor},
                            {"low_freq_factor", rope.low_frequency_factor},
                            {"high_freq_factor", rope.high_frequency_factor},
                            {"original_max_position_embeddings", rope.original_context}};
  }
  return json;
}

// `model.type` must be plain. `shards` > 1: that many files and an index.
inline void write_tiny_safetensors(const std::filesystem::path& directory, const TinyModel& model,
                                   std::size_t shards = 1) {
  std::filesystem::create_directories(directory);
  write_file(directory / "config.json", tiny_hf_config(model.config).dump(2));
  write_file(directory / "tokenizer.json", tiny_tokenizer_json().dump());
  write_file(directory / "tokenizer_config.json", nlohmann::json{{"tokenizer_class", "GPT2Tokenizer"},
                                                                 {"bos_token", "<|im_start|>"},
                                                                 {"eos_token", "<|im_end|>"},
                                                                 {"add_bos_token", false},
                                                                 {"chat_template", kTinyChatTemplate}}
                                                      .dump());
  const std::string type = model.type == DType::f32 ? "F32" : model.type == DType::f16 ? "F16" : "BF16";
  const auto expected = expected_tensors(model.config);
  nlohmann::json index = {{"metadata", nlohmann::json::object()}, {"weight_map", nlohmann::json::object()}};
  for (std::size_t shard = 0; shard < shards; ++shard) {
    const std::string file = shards == 1 ? "model.safetensors"
                                         : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
    std::vector<std::pair<std::string, nlohmann::json>> entries;
    std::vector<std::vector<std::byte>> data;
    for (std::size_t i = shard; i < expected.size(); i += shards) {
      if (!expected[i].required) continue;
      const std::string name = tiny_original_name(NameScheme::hugging_face, expected[i].name);
      entries.emplace_back(name, nlohmann::json{{"dtype", type}, {"shape", expected[i].shape}});
      data.push_back(tiny_tensor(model, expected[i], model.type, 0));
      index["weight_map"][name] = file;
    }
    write_file(directory / file, build_safetensors(entries, data));
  }
  if (shards > 1) write_file(directory / "model.safetensors.index.json", index.dump());
}

}  // namespace switchyard::model
