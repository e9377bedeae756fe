#include "model/tensor_names.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <span>

namespace switchyard::model {
namespace {

struct Names {
  std::string_view project;
  std::string_view gguf;
  std::string_view hugging_face;
};

constexpr Names kModelNames[] = {
    {"token_embedding", "token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm", "output_norm.weight", "model.norm.weight"},
    {"output", "output.weight", "lm_head.weight"},
    {"rope_factors", "rope_freqs.weight", ""},
};

// What follows "layers.N.", "blk.N." or "model.layers.N.".
constexpr Names kLayerNames[] = {
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
    {"ffn.down", "ffn_down.weight", "mlp.down_proj.weight"},
};

const Names* find_name(std::span<const Names> names, NameScheme scheme, std::string_view original) {
  if (original.empty()) return nullptr;
  for (const Names& name : names) {
    if ((scheme == NameScheme::gguf ? name.gguf : name.hugging_face) == original) return &name;
  }
  return nullptr;
}

}  // namespace

std::optional<std::string> project_name(NameScheme scheme, std::string_view original) {
  if (const Names* name = find_name(kModelNames, scheme, original)) return std::string(name->project);
  const std::string_view prefix = scheme == NameScheme::gguf ? "blk." : "model.layers.";
  if (!original.starts_with(prefix)) return std::nullopt;
  const std::string_view rest = original.substr(prefix.size());
  std::uint32_t layer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  const std::string_view digits = rest.substr(0, static_cast<std::size_t>(end - rest.data()));
  if (error != std::errc() || (digits.size() > 1 && digits.front() == '0')) return std::nullopt;
  if (digits.size() == rest.size() || rest[digits.size()] != '.') return std::nullopt;
  const Names* name = find_name(kLayerNames, scheme, rest.substr(digits.size() + 1));
  if (name == nullptr) return std::nullopt;
  return fmt::format("layers.{}.{}", layer, name->project);
}

bool is_ignored(NameScheme scheme, std::string_view original) {
  return scheme == NameScheme::hugging_face && original.ends_with(".rotary_emb.inv_freq");
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  const std::uint64_t hidden = config.hidden;
  const std::uint64_t query = std::uint64_t{config.heads} * config.head_dim;
  const std::uint64_t kv = std::uint64_t{config.kv_heads} * config.head_dim;
  const std::uint64_t ffn = config.intermediate;
  std::vector<ExpectedTensor> expected = {{"token_embedding", {config.vocab, hidden}},
                                          {"output_norm", {hidden}}};
  if (!config.tied_embeddings) expected.push_back({"output", {config.vocab, hidden}});
  expected.push_back({"rope_factors", {config.head_dim / 2}, false});
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    const auto add = [&](std::string_view name, std::vector<std::uint64_t> shape) {
      expected.push_back({fmt::format("layers.{}.{}", layer, name), std::move(shape)});
    };
    add("attention_norm", {hidden});
    add("attention.q", {query, hidden});
    add("attention.k", {kv, hidden});
    add("attention.v", {kv, hidden});
    if (config.qkv_bias) {
      add("attention.q_bias", {query});
      add("attention.k_bias", {kv});
      add("attention.v_bias", {kv});
    }
    add("attention.output", {hidden, query});
    add("ffn_norm", {hidden});
    add("ffn.gate", {ffn, hidden});
    add("ffn.up", {ffn, hidden});
    add("ffn.down", {hidden, ffn});
  }
  return expected;
}

Result<std::vector<Tensor>> arrange_tensors(const ModelConfig& config, std::vector<Tensor> found) {
  std::map<std::string_view, Tensor*> by_name;
  for (Tensor& tensor : found) {
    if (!by_name.emplace(tensor.name, &tensor).second) {
      return fail(ErrorCode::corrupt, "tensor '{}' is there twice", tensor.original_name);
    }
  }
  std::vector<Tensor*> order;
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const auto entry = by_name.find(expected.name);
    if (entry == by_name.end()) {
      if (!expected.required) continue;
      return fail(ErrorCode::corrupt, "tensor '{}' with shape [{}] is missing", expected.name,
                  fmt::join(expected.shape, ", "));
    }
    const Tensor& tensor = *entry->second;
    if (tensor.shape != expected.shape) {
      return fail(ErrorCode::corrupt, "tensor '{}' ('{}') has shape [{}]; the configuration asks for [{}]",
                  tensor.original_name, tensor.name, fmt::join(tensor.shape, ", "),
                  fmt::join(expected.shape, ", "));
    }
    if (tensor.shape.size() == 1 && block_values(tensor.type) != 1) {
      return fail(ErrorCode::unsupported, "vector '{}' is quantised ({})", tensor.original_name,
                  to_string(tensor.type));
    }
    if (tensor.columns() % block_values(tensor.type) != 0) {
      return fail(ErrorCode::corrupt,
                  "tensor '{}' has rows of {} values, which blocks of {} ({}) do not fill",
                  tensor.original_name, tensor.columns(), block_values(tensor.type), to_string(tensor.type));
    }
    // The configuration's limits keep these products within 64 bits.
    const std::uint64_t bytes =
        tensor.rows() * (tensor.columns() / block_values(tensor.type)) * block_bytes(tensor.type);
    if (tensor.bytes.size() != bytes) {
      return fail(ErrorCode::corrupt, "tensor '{}' has {} bytes instead of {}", tensor.original_name,
                  tensor.bytes.size(), bytes);
    }
    order.push_back(entry->second);
    by_name.erase(entry);
  }
  if (!by_name.empty()) {
    return fail(ErrorCode::unsupported,
                "tensor '{}' is more than the configuration asks for; a model with it is not known",
                by_name.begin()->second->original_name);
  }
  std::vector<Tensor> arranged;
  arranged.reserve(order.size());
  for (Tensor* tensor : order) arranged.push_back(std::move(*tensor));
  return arranged;
}

}  // namespace switchyard::model
