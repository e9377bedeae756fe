// Runtimes that take turns in one workspace: whatever another one left there changes nothing.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint_parts.h"
#include "model/cpu_workspace.h"
#include "model/memory_image.h"
#include "model/runtime.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

std::shared_ptr<const ModelImage> image_of(const TinyModel& model) {
  const std::vector<std::byte> file = tiny_gguf(model).build();
  auto parts = read_gguf_bytes(file, "tiny");
  EXPECT_TRUE(parts) << parts.error().message;
  auto image = MemoryImage::make(parts->config, parts->tensors);
  EXPECT_TRUE(image) << image.error().message;
  return *image;
}

// The same model with norms that make every number that it computes a NaN.
class PoisonImage final : public ModelImage {
 public:
  explicit PoisonImage(std::shared_ptr<const ModelImage> from) : from_(std::move(from)) {
    std::fill(nans_.begin(), nans_.end(), std::numeric_limits<float>::quiet_NaN());
  }
  const ModelConfig& config() const override { return from_->config(); }
  std::span<const std::byte> tokenizer() const override { return {}; }
  std::string_view hash() const override { return "poison"; }
  std::span<const std::byte> bytes() const override { return {}; }
  std::span<const std::byte> file() const override { return {}; }
  std::shared_ptr<const ModelImage> placed_at(std::span<const std::byte>) const override { return nullptr; }
  Result<PackedMatrix> matrix(std::string_view name) const override { return from_->matrix(name); }
  Result<std::span<const float>> vector(std::string_view name) const override {
    const auto vector = from_->vector(name);
    if (!vector || name == "rope_factors") return vector;
    return std::span<const float>(nans_).first(vector->size());
  }

 private:
  std::shared_ptr<const ModelImage> from_;
  std::vector<float> nans_ = std::vector<float>(4096);
};

// A request of a model that is computed bit by bit: chunks of `sizes` in turn.
class Request {
 public:
  Request(std::shared_ptr<const ModelImage> image, std::shared_ptr<RuntimeWorkspace> workspace,
          std::uint32_t threads, std::uint64_t seed)
      : layout_(kv_layout(image->config())), memory_(kBlocks * stride() + 64, std::byte{0xff}) {
    const auto misaligned = reinterpret_cast<std::uintptr_t>(memory_.data()) % 64;
    auto runtime =
        Runtime::create(std::move(image), std::span(memory_).subspan(64 - misaligned, kBlocks * stride()),
                        {.threads = threads, .max_rows = 64}, std::move(workspace));
    EXPECT_TRUE(runtime) << runtime.error().message;
    runtime_ = *std::move(runtime);
    TinyRandom random(seed, "tokens");
    tokens_.resize(std::size_t{kBlocks} * kBlockTokens);
    for (auto& token : tokens_) {
      token = static_cast<std::int32_t>(random.next() % runtime_->config().vocab);
    }
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      blocks_.push_back(static_cast<BlockId>(i * block_units(layout_.block_bytes())));
    }
  }

  bool more() const { return position_ < tokens_.size(); }

  // Computes the next tokens; the logits of the last.
  std::vector<float> step() {
    const std::uint32_t count = std::min<std::uint32_t>(
        kSizes[steps_++ % std::size(kSizes)], static_cast<std::uint32_t>(tokens_.size()) - position_);
    const Chunk chunk{.tokens = std::span(tokens_).subspan(position_, count),
                      .position = position_,
                      .blocks = blocks_,
                      .logits = true};
    std::vector<float> logits(runtime_->config().vocab);
    const Status status = runtime_->step({&chunk, 1}, logits);
    EXPECT_TRUE(status) << status.error().message;
    position_ += count;
    return logits;
  }

 private:
  static constexpr std::uint32_t kBlocks = 20;
  static constexpr std::uint32_t kSizes[] = {1, 40, 3, 1, 17, 64};
  std::size_t stride() const { return block_units(layout_.block_bytes()) * kBlockUnit; }

  KvLayout layout_;
  std::vector<std::byte> memory_;
  std::vector<BlockId> blocks_;
  std::vector<std::int32_t> tokens_;
  std::unique_ptr<Runtime> runtime_;
  std::uint32_t position_ = 0;
  std::size_t steps_ = 0;
};

// Shapes that differ in every buffer, some with padding in each.
std::vector<std::shared_ptr<const ModelImage>> images() {
  TinyModel plain;
  plain.type = DType::q4_1;
  plain.embedding_type = DType::q8_0;
  TinyModel odd = TinyModel::of_type(DType::bf16);
  odd.config.hidden = 80;
  odd.config.heads = 5;
  odd.config.kv_heads = 1;
  odd.config.intermediate = 88;  // half a panel at the end: gate and up are multiplied apart
  TinyModel large = TinyModel::of_type(DType::q8_0, Architecture::qwen2);
  large.config.hidden = 192;
  large.config.heads = 6;
  large.config.kv_heads = 3;
  large.config.head_dim = 32;
  large.config.intermediate = 320;
  large.config.layers = 3;
  return {image_of(plain), image_of(odd), image_of(large), std::make_shared<PoisonImage>(image_of(odd)),
          std::make_shared<PoisonImage>(image_of(large))};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(RuntimeWorkspace, TurnsInAnyOrderDoNotChangeABit) {
  const auto models = images();
  constexpr std::size_t kSound = 3;  // the rest is poison
  std::vector<std::vector<std::vector<float>>> expected(kSound);
  for (std::size_t i = 0; i < kSound; ++i) {
    for (Request alone(models[i], nullptr, 1, i); alone.more();) expected[i].push_back(alone.step());
  }
  for (const std::uint32_t threads : {1u, 2u, 3u}) {
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const auto workspace = *RuntimeWorkspace::create(threads);
      TinyRandom random(seed, "turns");
      std::vector<std::unique_ptr<Request>> requests(models.size());
      std::vector<std::size_t> done(models.size());
      std::size_t ended = 0;
      while (ended < kSound) {
        // Runtimes are made when their turn comes first, and others go in between.
        const std::size_t i = random.next() % models.size();
        if (done[i] == expected[0].size()) continue;
        if (!requests[i]) requests[i] = std::make_unique<Request>(models[i], workspace, 0, i);
        const std::vector<float> logits = requests[i]->step();
        if (i < kSound) {
          ASSERT_TRUE(same_bits(logits, expected[i][done[i]]))
              << "model " << i << ", step " << done[i] << ", " << threads << " threads, seed " << seed;
        }
        if (++done[i] < expected[0].size()) continue;
        requests[i].reset();
        if (i < kSound) {
          ++ended;
        } else {
          done[i] = 0;  // poison without end
        }
      }
    }
  }
}

TEST(RuntimeWorkspace, ARuntimeOutlivesWhoMadeItsWorkspace) {
  const auto image = images().front();
  auto workspace = *RuntimeWorkspace::create(2);
  Request request(image, workspace, 0, 7);
  workspace.reset();
  Request alone(image, nullptr, 1, 7);
  EXPECT_TRUE(same_bits(request.step(), alone.step()));
}

TEST(RuntimeWorkspace, ChecksItsArguments) {
  EXPECT_EQ(RuntimeWorkspace::create(5000).error().code, ErrorCode::invalid);
  EXPECT_TRUE(RuntimeWorkspace::create(0));
  struct Foreign final : RuntimeWorkspace {};
  const auto image = images().front();
  alignas(64) static std::byte pool[64 << 10];
  const auto runtime = Runtime::create(image, pool, {}, std::make_shared<Foreign>());
  ASSERT_FALSE(runtime);
  EXPECT_EQ(runtime.error().code, ErrorCode::invalid);
}

TEST(CpuWorkspace, KeepsTablesOfRotationsWithinLimits) {
  CpuWorkspace workspace(1);
  const std::vector<float> first = {1, 0.5f};
  const auto table = workspace.rope(first);
  table->grow(1000);
  EXPECT_EQ(workspace.rope(first), table);
  for (int i = 0; i < 40; ++i) (void)workspace.rope(std::vector<float>{static_cast<float>(i), 2});
  EXPECT_EQ(table.use_count(), 1) << "kept for ever";
  EXPECT_NE(workspace.rope(first), table);
}

}  // namespace
}  // namespace switchyard::model
