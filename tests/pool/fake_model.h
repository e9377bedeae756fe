// Models whose next token is a hash of everything in their KV blocks and of their weights: one wrong byte of
// KV, or of an image in a berth, gives other text.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "memory/block_pool.h"
#include "memory/shared_memory.h"
#include "model/image.h"
#include "model/packed_matrix.h"
#include "model/runtime.h"

namespace switchyard::pool {

inline constexpr std::uint32_t kFakeVocab = 997;

// What tells one fake model from another.
struct FakeModel {
  std::uint32_t layers = 3;
  std::uint32_t head_dim = 8;
  std::uint64_t salt = 1;                 // of its weights
  std::uint64_t weight_bytes = 64 << 10;  // whole pages
  std::uint32_t readings = 1;             // of the weights in a step: for steps that take their time
  std::uint32_t numbers_until = 1 << 20;  // logits of a longer text are NaN
};

inline model::ModelConfig fake_config(const FakeModel& fake = {}) {
  return {.name = "fake",
          .layers = fake.layers,
          .hidden = 8,
          .heads = 1,
          .kv_heads = 1,
          .head_dim = fake.head_dim,
          .intermediate = 8,
          .vocab = kFakeVocab,
          .context = 2048,
          .end_tokens = {0}};
}

inline std::uint64_t fake_mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x7F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// A whole image file: a header of one page, then weights, of which one word in each page says something.
inline constexpr std::size_t kFakePage = 4096;
inline std::vector<std::byte> fake_image_file(const FakeModel& fake = {}) {
  std::vector<std::byte> file(kFakePage + fake.weight_bytes);
  std::memcpy(file.data(), &fake, sizeof(fake));
  for (std::size_t page = 0; page * kFakePage < fake.weight_bytes; ++page) {
    const std::uint64_t word = fake_mix(fake.salt, page);
    std::memcpy(file.data() + kFakePage + page * kFakePage, &word, sizeof(word));
  }
  return file;
}

class FakeImage final : public model::ModelImage {
 public:
  explicit FakeImage(const FakeModel& fake = {})
      : own_(std::make_shared<const std::vector<std::byte>>(fake_image_file(fake))),
        fake_(fake),
        file_(*own_),
        bytes_(file_.subspan(kFakePage)) {}
  FakeImage(const FakeModel& fake, std::span<const std::byte> file, std::span<const std::byte> bytes,
            std::shared_ptr<const void> keep)
      : keep_(std::move(keep)), fake_(fake), file_(file), bytes_(bytes) {}

  const FakeModel& fake() const { return fake_; }
  const model::ModelConfig& config() const override { return config_; }
  std::span<const std::byte> tokenizer() const override { return {}; }
  std::string_view hash() const override { return hash_; }
  Result<model::PackedMatrix> matrix(std::string_view) const override {
    return fail(ErrorCode::not_found, "fake");
  }
  Result<std::span<const float>> vector(std::string_view) const override {
    return fail(ErrorCode::not_found, "fake");
  }
  std::span<const std::byte> bytes() const override { return bytes_; }
  std::span<const std::byte> file() const override { return file_; }
  std::shared_ptr<const ModelImage> placed_at(std::span<const std::byte> bytes) const override {
    return std::make_shared<FakeImage>(fake_, std::span<const std::byte>(), bytes, nullptr);
  }

 private:
  const std::shared_ptr<const std::vector<std::byte>> own_;
  const std::shared_ptr<const void> keep_;
  const FakeModel fake_;
  const std::span<const std::byte> file_;
  const std::span<const std::byte> bytes_;
  const model::ModelConfig config_ = fake_config(fake_);
  const std::string hash_ = "fake" + std::to_string(fake_.salt);
};

// For Instance::create.
inline Result<std::shared_ptr<const model::ModelImage>> open_fake_image(std::span<const std::byte> file,
                                                                        std::shared_ptr<const void> keep) {
  FakeModel fake;
  if (file.size() < kFakePage) return fail(ErrorCode::corrupt, "a fake image is cut short");
  std::memcpy(&fake, file.data(), sizeof(fake));
  if (file.size() != kFakePage + fake.weight_bytes) return fail(ErrorCode::corrupt, "no fake image");
  return std::make_shared<const FakeImage>(fake, file, file.subspan(kFakePage), std::move(keep));
}

// Shared memory with an image file, as a cache has it.
inline SharedMemory fake_shared_image(const FakeModel& fake = {}) {
  const auto file = fake_image_file(fake);
  auto memory = SharedMemory::create("fake-image", file.size());
  EXPECT_TRUE(memory) << memory.error().message;
  std::memcpy(memory->base(), file.data(), file.size());
  return *std::move(memory);
}

class FakeRuntime final : public model::Runtime {
 public:
  FakeRuntime(std::shared_ptr<const model::ModelImage> image, std::span<std::byte> pool)
      : image_(std::move(image)),
        fake_(dynamic_cast<const FakeImage&>(*image_).fake()),
        config_(image_->config()),
        layout_(model::kv_layout(config_)),
        pool_(pool) {}

  Status step(std::span<const model::Chunk> chunks, std::span<float> logits,
              const model::LayerDone& layer_done) override {
    std::uint64_t weights = 0;
    for (std::uint32_t i = 0; i < fake_.readings; ++i) weights = read_weights(weights);
    for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
      for (const auto& chunk : chunks) {
        for (std::uint32_t i = 0; i < chunk.tokens.size(); ++i) {
          const std::uint32_t position = chunk.position + i;
          if (position / model::kBlockTokens >= chunk.blocks.size())
            return fail(ErrorCode::invalid, "too few blocks");
          const std::uint64_t value = fake_mix(
              fake_mix(static_cast<std::uint64_t>(chunk.tokens[i]) << 32 | position, layer), weights);
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
          hash = fake_mix(hash, value);
        }
      }
      const auto out = logits.subspan(row++ * kFakeVocab, kFakeVocab);
      for (std::uint32_t token = 0; token < kFakeVocab; ++token) {
        out[token] = static_cast<float>(fake_mix(hash, token) % 10000) / 1000.0f;
      }
      out[0] = -100;  // the end token never comes by chance
      if (chunk.position + chunk.tokens.size() > fake_.numbers_until) {
        std::fill(out.begin(), out.end(), std::numeric_limits<float>::quiet_NaN());
      }
    }
    return {};
  }
  const model::ModelConfig& config() const override { return config_; }
  const model::KvLayout& kv_layout() const override { return layout_; }

 private:
  std::uint64_t read_weights(std::uint64_t hash) const {
    const auto bytes = image_->bytes();
    for (std::size_t at = 0; at < bytes.size(); at += kFakePage) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + at, sizeof(word));
      hash = fake_mix(hash, word);
    }
    return hash;
  }
  std::byte* slot(const model::Chunk& chunk, std::uint32_t layer, std::uint32_t position) const {
    const BlockId block = chunk.blocks[position / model::kBlockTokens];
    return pool_.data() + block_offset(block) + layout_.key_offset(layer, 0) +
           position % model::kBlockTokens * layout_.head_dim * layout_.element_bytes;
  }

  const std::shared_ptr<const model::ModelImage> image_;
  const FakeModel fake_;
  const model::ModelConfig config_;
  const model::KvLayout layout_;
  std::span<std::byte> pool_;
};

inline Result<std::unique_ptr<model::Runtime>> make_fake_runtime(
    std::shared_ptr<const model::ModelImage> image, std::span<std::byte> pool, const model::RuntimeOptions&,
    const std::shared_ptr<model::RuntimeWorkspace>&) {
  return std::unique_ptr<model::Runtime>(std::make_unique<FakeRuntime>(std::move(image), pool));
}

// The tokens that greedy decoding of `prompt` gives, computed in the plainest way.
inline std::vector<std::int32_t> fake_tokens(const std::vector<std::int32_t>& prompt, std::uint32_t count,
                                             const FakeModel& fake = {}) {
  const auto layout = model::kv_layout(fake_config(fake));
  const auto blocks_needed = model::KvLayout::blocks_for(static_cast<std::uint32_t>(prompt.size()) + count);
  const std::size_t units = (layout.block_bytes() + kBlockUnit - 1) / kBlockUnit;
  std::vector<std::byte> memory(blocks_needed * units * kBlockUnit);
  FakeRuntime runtime(std::make_shared<FakeImage>(fake), memory);
  std::vector<BlockId> blocks(blocks_needed);
  for (std::uint32_t i = 0; i < blocks_needed; ++i) blocks[i] = static_cast<BlockId>(i * units);
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
