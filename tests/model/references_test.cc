// Logits against Hugging Face transformers; the references are made by tools/make_model_references.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint_parts.h"
#include "model/memory_image.h"
#include "model/runtime.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

nlohmann::json read_references(const std::string& name) {
  std::ifstream file(std::filesystem::path("tests/data") / name);
  return nlohmann::json::parse(file);
}

// Logits after each of `tokens`, `rows` of them in a step.
class Forced {
 public:
  explicit Forced(std::shared_ptr<const ModelImage> image)
      : layout_(kv_layout(image->config())), bytes_(pool_bytes() + 64) {
    const auto misaligned = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
    auto runtime = Runtime::create(std::move(image), std::span(bytes_).subspan(64 - misaligned, pool_bytes()),
                                   {.threads = 2, .max_rows = kRows, .max_logit_rows = kRows});
    EXPECT_TRUE(runtime) << runtime.error().message;
    runtime_ = std::move(*runtime);
    for (std::uint32_t i = 0; i < kBlocks; ++i) blocks_.push_back(i * units());
  }

  template <class F>
  void run(std::span<const std::int32_t> tokens, F&& each) {
    const std::size_t vocab = runtime_->config().vocab;
    std::vector<float> logits(kRows * vocab);
    for (std::size_t start = 0; start < tokens.size(); start += kRows) {
      // One chunk for each token, so that all have logits; they follow each other within the step.
      std::vector<Chunk> chunks;
      for (std::size_t i = start; i < std::min(start + kRows, tokens.size()); ++i) {
        chunks.push_back({.tokens = tokens.subspan(i, 1),
                          .position = static_cast<std::uint32_t>(i),
                          .blocks = blocks_,
                          .logits = true});
      }
      const Status status = runtime_->step(chunks, logits);
      ASSERT_TRUE(status) << status.error().message;
      for (std::size_t i = 0; i < chunks.size(); ++i)
        each(start + i, std::span(logits).subspan(i * vocab, vocab));
    }
  }

 private:
  BlockId units() const { return static_cast<BlockId>(block_units(layout_.block_bytes())); }
  std::size_t pool_bytes() const { return kBlocks * block_offset(units()); }

  static constexpr std::uint32_t kRows = 64;
  static constexpr std::uint32_t kBlocks = 96;
  KvLayout layout_;
  std::vector<std::byte> bytes_;
  std::vector<BlockId> blocks_;
  std::unique_ptr<Runtime> runtime_;
};

TEST(References, TinyModelsGiveTheLogitsOfTransformers) {
  const nlohmann::json references = read_references("tiny_references.json");
  for (const auto& reference : references["models"]) {
    SCOPED_TRACE(reference["name"].get<std::string>());
    TinyModel model;
    ModelConfig& config = model.config;
    config.architecture = reference["architecture"] == "llama" ? Architecture::llama : Architecture::qwen2;
    config.qkv_bias = config.architecture == Architecture::qwen2;
    config.heads = reference["heads"];
    config.kv_heads = reference["kv_heads"];
    config.head_dim = reference["head_dim"];
    config.tied_embeddings = reference["tied"];
    if (!reference["rope"].is_null()) {
      const auto& rope = reference["rope"];
      config.rope_scaling.factor = rope["factor"];
      config.rope_scaling.kind = RopeScaling::Kind::linear;
      if (rope["rope_type"] == "llama3") {
        config.rope_scaling = {.kind = RopeScaling::Kind::llama3,
                               .factor = rope["factor"],
                               .low_frequency_factor = rope["low_freq_factor"],
                               .high_frequency_factor = rope["high_freq_factor"],
                               .original_context = rope["original_max_position_embeddings"]};
      }
    }
    const std::vector<std::byte> file = tiny_gguf(model).build();
    auto parts = read_gguf_bytes(file, "tiny");
    ASSERT_TRUE(parts) << parts.error().message;
    parts->config.rope_scaling = config.rope_scaling;
    auto image = MemoryImage::make(parts->config, parts->tensors);
    ASSERT_TRUE(image) << image.error().message;
    const auto tokens = reference["tokens"].get<std::vector<std::int32_t>>();
    const auto positions = reference["positions"].get<std::vector<std::size_t>>();
    double worst = 0;
    double worst_half = 0;
    double largest = 0;
    Forced(*image).run(tokens, [&](std::size_t position, std::span<const float> logits) {
      const auto at = std::find(positions.begin(), positions.end(), position);
      if (at == positions.end()) return;
      const auto row = static_cast<std::size_t>(at - positions.begin());
      for (std::size_t i = 0; i < logits.size(); ++i) {
        const double expected = reference["logits"][row][i];
        worst = std::max(worst, std::abs(logits[i] - expected));
        worst_half =
            std::max(worst_half, std::abs(logits[i] - reference["half_kv_logits"][row][i].get<double>()));
        largest = std::max(largest, std::abs(expected));
      }
    });
    std::printf(
        "%s: logits up to %.1f; largest difference %.2g, with keys and values in halves on both sides %.2g\n",
        reference["name"].get<std::string>().c_str(), largest, worst, worst_half);
    EXPECT_LT(worst, 5e-3);
    // A key on the border between two halves may be rounded to either.
    EXPECT_LT(worst_half, 1e-3);
  }
}

std::shared_ptr<const ModelImage> real_image() {
  const char* path = std::getenv("SWITCHYARD_TEST_MODEL");
  if (path == nullptr || *path == '\0') return nullptr;
  auto parts = read_gguf(path);
  if (!parts) {
    ADD_FAILURE() << parts.error().message;
    return nullptr;
  }
  return *MemoryImage::make(parts->config, parts->tensors);
}

TEST(References, SmolLm2AgreesWithTransformers) {
  const auto image = real_image();
  if (image == nullptr) GTEST_SKIP() << "SWITCHYARD_TEST_MODEL names no model";
  const nlohmann::json references = read_references("smollm2_references.json");
  // A disagreement is allowed where transformers itself sees two tokens as almost equal.
  constexpr double kNearTie = 0.1;
  std::size_t total = 0;
  std::size_t agreed = 0;
  double widest = 0;
  Forced forced(image);
  for (const auto& text : references["texts"]) {
    const auto tokens = text["tokens"].get<std::vector<std::int32_t>>();
    const auto top = text["top"].get<std::vector<std::int32_t>>();
    const auto margins = text["margins"].get<std::vector<double>>();
    forced.run(tokens, [&](std::size_t position, std::span<const float> logits) {
      const auto best =
          static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      ++total;
      agreed += best == top[position] ? 1 : 0;
      if (best != top[position]) {
        widest = std::max(widest, margins[position]);
        EXPECT_LT(margins[position], kNearTie) << text["name"] << ", position " << position;
      }
    });
  }
  std::printf("%zu of %zu positions agree; widest margin of a disagreement %.4f\n", agreed, total, widest);
  EXPECT_GE(total, 2000u);
  EXPECT_GE(static_cast<double>(agreed), 0.99 * static_cast<double>(total));
}

TEST(References, SmolLm2WritesTheGreedyTextOfTransformers) {
  const auto image = real_image();
  if (image == nullptr) GTEST_SKIP() << "SWITCHYARD_TEST_MODEL names no model";
  const nlohmann::json greedy = read_references("smollm2_references.json")["greedy"];
  auto tokens = greedy["prompt"].get<std::vector<std::int32_t>>();
  const auto output = greedy["output"].get<std::vector<std::int32_t>>();
  const std::size_t prompt = tokens.size();
  tokens.insert(tokens.end(), output.begin(), output.end());
  Forced(image).run(tokens, [&](std::size_t position, std::span<const float> logits) {
    if (position + 1 < prompt || position + 1 == tokens.size()) return;
    const auto best =
        static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    EXPECT_EQ(best, tokens[position + 1]) << "position " << position + 1;
  });
}

}  // namespace
}  // namespace switchyard::model
