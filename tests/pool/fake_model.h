// A model whose next token is a hash of everything in its KV blocks: one wrong byte of KV gives other text.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "model/image.h"
#include "model/packed_matrix.h"
#include "model/runtime.h"

namespace switchyard::pool {

inline constexpr std::uint32_t kFakeVocab = 997;

inline model::ModelConfig fake_config() {
  return {.name = "fake",
          .layers = 3,
          .hidden = 8,
          .heads = 1,
          .kv_heads = 1,
          .head_dim = 8,
          .intermediate = 8,
          .vocab = kFakeVocab,
          .context = 2048,
          .end_tokens = {0}};
}

class FakeImage final : public model::ModelImage {
 public:
  const model::ModelConfig& config() const override { return config_; }
  std::span<const std::byte> tokenizer() const override { return {}; }
  std::string_view hash() const override { return "fake"; }
  Result<model::PackedMatrix> matrix(std::string_view) const override {
    return fail(ErrorCode::not_found, "fake");
  }
  Result<std::span<const float>> vector(std::string_view) const override {
    return fail(ErrorCode::not_found, "fake");
  }
  std::span<const std::byte> bytes() const override { return {}; }
  std::span<const std::byte> file() const override { return {}; }
  std::shared_ptr<const model::ModelImage> placed_at(std::span<const std::byte>) const override {
    return std::make_shared<FakeImage>();
  }

 private:
  const model::ModelConfig config_ = fake_config();
};

class FakeRuntime final : public model::Runtime {
 public:
  explicit FakeRuntime(std::span<std::byte> pool) : pool_(pool) {}

  Status step(std::span<const model::Chunk> chunks, std::span<float> logits,
              const model::LayerDone& layer_done) override {
    for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
      for (const auto& chunk : chunks) {
        for (std::uint32_t i = 0; i < chunk.tokens.size(); ++i) {
          const std::uint32_t position = chunk.position + i;
          if (position / model::kBlockTokens >= chunk.blocks.size())
            return fail(ErrorCode::invalid, "too few blocks");
          const std::uint64_t value =
              mix(static_cast<std::uint64_t>(chunk.tokens[i]) << 32 | position, layer);
          std::memcpy(slot(chunk, layer, position), &value, sizeof(value));
        }
      }
      if (layer_done) layer_done(layer);
    }
    std::size_t row = 0;
    for (const auto& chunk : chunks) {
      if (!chunk.logits) continue;
      std::uint64_t hash = 1;
      for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
        for (std::uint32_t position = 0; position < chunk.position + chunk.tokens.size(); ++position) {
          std::uint64_t value = 0;
          std::memcpy(&value, slot(chunk, layer, position), sizeof(value));
          hash = mix(hash, value);
        }
      }
      const auto out = logits.subspan(row++ * kFakeVocab, kFakeVocab);
      for (std::uint32_t token = 0; token < kFakeVocab; ++token) {
        out[token] = static_cast<float>(mix(hash, token) % 10000) / 1000.0f;
      }
      out[0] = -100;  // the end token never comes by chance
    }
    return {};
  }
  const model::ModelConfig& config() const override { return config_; }
  const model::KvLayout& kv_layout() const override { return layout_; }

 private:
  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    std::uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x7F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  std::byte* slot(const model::Chunk& chunk, std::uint32_t layer, std::uint32_t position) const {
    return pool_.data() + block_offset(chunk.blocks[position / model::kBlockTokens]) +
           layout_.key_offset(layer, 0) +
           position % model::kBlockTokens * layout_.head_dim * layout_.element_bytes;
  }

  const model::ModelConfig config_ = fake_config();
  const model::KvLayout layout_{.layers = 3, .kv_heads = 1, .head_dim = 8};
  std::span<std::byte> pool_;
};

inline Result<std::unique_ptr<model::Runtime>> make_fake_runtime(std::shared_ptr<const model::ModelImage>,
                                                                 std::span<std::byte> pool,
                                                                 const model::RuntimeOptions&) {
  return std::unique_ptr<model::Runtime>(std::make_unique<FakeRuntime>(pool));
}

// The tokens that greedy decoding of `prompt` gives, computed in the plainest way.
inline std::vector<std::int32_t> fake_tokens(const std::vector<std::int32_t>& prompt, std::uint32_t count) {
  const auto layout = model::kv_layout(fake_config());
  const auto blocks_needed = model::KvLayout::blocks_for(static_cast<std::uint32_t>(prompt.size()) + count);
  const auto units = static_cast<BlockId>(block_units(layout.block_bytes()));
  std::vector<std::byte> memory(blocks_needed * block_offset(units));
  FakeRuntime runtime(memory);
  std::vector<BlockId> blocks(blocks_needed);
  for (std::uint32_t i = 0; i < blocks_needed; ++i) blocks[i] = i * units;
  std::vector<float> logits(kFakeVocab);
  std::vector<std::int32_t> output;
  std::vector<std::int32_t> feed = prompt;
  std::uint32_t position = 0;
  while (output.size() < count) {
    const model::Chunk chunk{.tokens = feed, .position = position, .blocks = blocks, .logits = true};
    EXPECT_TRUE(runtime.step(std::span(&chunk, 1), logits, {}));
    position += static_cast<std::uint32_t>(feed.size());
    output.push_back(
        static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    feed = {output.back()};
  }
  return output;
}

}  // namespace switchyard::pool
