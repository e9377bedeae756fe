#include "model/runtime.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "model/checkpoint_parts.h"
#include "model/memory_image.h"
#include "model/random_tensor.h"
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

// The real model's image, once for all tests; nullptr without SWITCHYARD_TEST_MODEL.
std::shared_ptr<const ModelImage> real_image() {
  static const std::shared_ptr<const ModelImage> image = []() -> std::shared_ptr<const ModelImage> {
    const char* path = std::getenv("SWITCHYARD_TEST_MODEL");
    if (path == nullptr || *path == '\0') return nullptr;
    auto parts = read_gguf(path);
    EXPECT_TRUE(parts) << parts.error().message;
    return *MemoryImage::make(parts->config, parts->tensors);
  }();
  return image;
}

// A runtime with a pool of its own, which is full of NaNs at first.
class Instance {
 public:
  Instance(std::shared_ptr<const ModelImage> image, const RuntimeOptions& options, std::uint32_t blocks = 64,
           const char* isa = nullptr, std::shared_ptr<RuntimeWorkspace> workspace = {})
      : layout_(kv_layout(image->config())), bytes_(blocks * block_stride() + 64, std::byte{0xff}) {
    const auto misaligned = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
    pool_ = std::span(bytes_).subspan(64 - misaligned, blocks * block_stride());
    if (isa != nullptr) ::setenv("SWITCHYARD_ISA", isa, 1);
    auto runtime = Runtime::create(std::move(image), pool_, options, std::move(workspace));
    if (isa != nullptr) ::unsetenv("SWITCHYARD_ISA");
    EXPECT_TRUE(runtime) << runtime.error().message;
    runtime_ = std::move(*runtime);
  }

  Runtime& runtime() { return *runtime_; }
  std::span<std::byte> pool() { return pool_; }
  std::uint32_t vocab() const { return runtime_->config().vocab; }
  // Bytes from a block to its neighbour.
  std::size_t block_stride() const { return block_units(layout_.block_bytes()) * kBlockUnit; }
  std::vector<BlockId> ids(std::span<const std::uint32_t> blocks) const {
    std::vector<BlockId> ids;
    for (const std::uint32_t block : blocks)
      ids.push_back(static_cast<BlockId>(block * block_units(layout_.block_bytes())));
    return ids;
  }

  // Computes tokens [position, position + count) of a request in chunks of `size`; logits of the last one.
  std::vector<float> feed(std::span<const std::int32_t> tokens, std::span<const std::uint32_t> blocks,
                          std::uint32_t size, std::uint32_t position = 0) {
    std::vector<float> logits(vocab());
    const std::vector<BlockId> places = ids(blocks);
    while (position < tokens.size()) {
      const auto count = std::min<std::uint32_t>(size, static_cast<std::uint32_t>(tokens.size()) - position);
      const Chunk chunk{
          .tokens = tokens.subspan(position, count), .position = position, .blocks = places, .logits = true};
      const Status status = runtime_->step({&chunk, 1}, logits);
      EXPECT_TRUE(status) << status.error().message;
      position += count;
    }
    return logits;
  }

 private:
  KvLayout layout_;
  std::vector<std::byte> bytes_;
  std::span<std::byte> pool_;
  std::unique_ptr<Runtime> runtime_;
};

std::vector<std::int32_t> some_tokens(std::size_t count, std::uint32_t vocab, std::uint64_t seed = 1) {
  TinyRandom random(seed, "tokens");
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(random.next() % vocab);
  return tokens;
}

std::vector<std::uint32_t> blocks_from(std::uint32_t first, std::uint32_t count, bool shuffled = false) {
  std::vector<std::uint32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), first);
  TinyRandom random(first, "order");
  for (std::size_t i = count; shuffled && i > 1; --i) std::swap(blocks[i - 1], blocks[random.next() % i]);
  return blocks;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TinyModel llama(DType type = DType::q4_1) {
  TinyModel model;
  model.type = type;
  model.embedding_type = DType::q8_0;
  return model;
}

struct Variant {
  std::string name;
  TinyModel model;
};

std::vector<Variant> variants() {
  std::vector<Variant> list;
  for (const DType type : kAllTypes) list.push_back({"llama_" + type_name(type), TinyModel::of_type(type)});
  list.push_back({"qwen2", TinyModel::of_type(DType::q8_0, Architecture::qwen2)});
  Variant untied{"untied", llama()};
  untied.model.config.tied_embeddings = false;
  list.push_back(untied);
  Variant wide{"wide_group", llama(DType::bf16)};
  wide.model.config.heads = 6;
  wide.model.config.kv_heads = 1;
  wide.model.config.head_dim = 64;
  wide.model.config.intermediate = 88;  // half a panel at the end
  list.push_back(wide);
  return list;
}

class TinyModels : public testing::TestWithParam<Variant> {};

TEST_P(TinyModels, ChunksThreadsBlocksAndInstructionSetsDoNotChangeABit) {
  const auto image = image_of(GetParam().model);
  const auto tokens = some_tokens(300, image->config().vocab);
  Instance plain(image, {.threads = 1, .max_rows = 512});
  const std::vector<float> expected = plain.feed(tokens, blocks_from(0, 19), 512);
  for (const float logit : expected) ASSERT_TRUE(std::isfinite(logit));
  for (const std::string isa : {"avx512", "avx2", "scalar"}) {
    for (const std::uint32_t threads : {1u, 2u, 3u}) {
      if (isa == "scalar" && threads != 2) continue;  // slow
      Instance other(image, {.threads = threads, .max_rows = 512}, 64, isa.c_str());
      for (const std::uint32_t size : {512u, 64u, 7u}) {
        if (isa == "scalar" && size != 64) continue;
        EXPECT_TRUE(same_bits(other.feed(tokens, blocks_from(20, 19, true), size), expected))
            << isa << ", " << threads << " threads, chunks of " << size;
      }
    }
  }
  Instance two(image, {.threads = 2, .max_rows = 4});
  EXPECT_TRUE(same_bits(two.feed(tokens, blocks_from(3, 30, true), 1), expected)) << "token by token";
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels, testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(Runtime, BatchMatesDoNotChangeABit) {
  const auto image = image_of(llama());
  const std::uint32_t vocab = image->config().vocab;
  Instance alone(image, {.threads = 2});
  Instance batch(image, {.threads = 2});
  // Nine requests of different lengths: some are prefilled while others decode.
  std::vector<std::vector<std::int32_t>> requests;
  std::vector<std::vector<float>> expected;
  for (std::uint32_t i = 0; i < 9; ++i) {
    requests.push_back(some_tokens(20 + 7 * i, vocab, i));
    expected.push_back(alone.feed(requests[i], blocks_from(0, 7), 512));
  }
  std::vector<std::uint32_t> done(9);
  std::vector<std::vector<std::uint32_t>> blocks;
  for (std::uint32_t i = 0; i < 9; ++i) blocks.push_back(batch.ids(blocks_from(7 * i, 7, true)));
  std::vector<std::vector<float>> results(9);
  for (std::uint32_t step = 0; std::any_of(results.begin(), results.end(), [](auto& r) { return r.empty(); });
       ++step) {
    ASSERT_LT(step, 200u);
    std::vector<Chunk> chunks;
    std::vector<std::uint32_t> who;
    for (std::uint32_t i = 0; i < 9; ++i) {
      const auto left = static_cast<std::uint32_t>(requests[i].size()) - done[i];
      if (left == 0 || step < i) continue;
      const std::uint32_t count = std::min(left, i % 3 == 0 ? 1 + step % 5 : 1);
      chunks.push_back({.tokens = std::span(requests[i]).subspan(done[i], count),
                        .position = done[i],
                        .blocks = blocks[i],
                        .logits = left == count});
      done[i] += count;
      if (left == count) who.push_back(i);
    }
    std::vector<float> logits(who.size() * vocab);
    ASSERT_TRUE(batch.runtime().step(chunks, logits));
    for (std::size_t i = 0; i < who.size(); ++i) {
      results[who[i]].assign(logits.begin() + static_cast<std::ptrdiff_t>(i * vocab),
                             logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab));
    }
  }
  for (std::size_t i = 0; i < 9; ++i) EXPECT_TRUE(same_bits(results[i], expected[i])) << "request " << i;
}

TEST(Runtime, LayerDoneMeansTheLayersKeysAndValuesAreInThePool) {
  const auto image = image_of(llama());
  const auto tokens = some_tokens(40, image->config().vocab);
  const auto blocks = blocks_from(2, 3);
  Instance whole(image, {.threads = 2}, 8);
  whole.feed(tokens, blocks, 512);
  const KvLayout layout = whole.runtime().kv_layout();

  Instance watched(image, {.threads = 2}, 8);
  std::vector<std::uint32_t> layers;
  std::vector<float> logits(watched.vocab());
  const std::vector<BlockId> ids = watched.ids(blocks);
  const Chunk chunk{.tokens = tokens, .blocks = ids};
  const auto check = [&](std::uint32_t layer) {
    layers.push_back(layer);
    for (const std::uint32_t block : blocks) {
      const std::size_t at = block * watched.block_stride() + layout.key_offset(layer, 0);
      EXPECT_EQ(0, std::memcmp(watched.pool().data() + at, whole.pool().data() + at, layout.layer_bytes()));
    }
  };
  ASSERT_TRUE(watched.runtime().step({&chunk, 1}, logits, check));
  EXPECT_EQ(layers, (std::vector<std::uint32_t>{0, 1}));
}

TEST(Runtime, KeysAndValuesMayComeFromElsewhere) {
  // Prefill in one instance, copy the blocks to other places of another's pool, decode there.
  const auto image = image_of(llama());
  const auto tokens = some_tokens(101, image->config().vocab);
  Instance prefill(image, {.threads = 1}, 16);
  Instance decode(image, {.threads = 2}, 32);
  const auto from = blocks_from(0, 7);
  const auto to = blocks_from(20, 7, true);
  prefill.feed(std::span(tokens).first(100), from, 512);
  const std::size_t size = prefill.block_stride();
  for (std::size_t i = 0; i < 7; ++i) {
    std::memcpy(decode.pool().data() + to[i] * size, prefill.pool().data() + from[i] * size, size);
  }
  EXPECT_TRUE(same_bits(decode.feed(tokens, to, 1, 100), prefill.feed(tokens, from, 1, 100)));
}

TEST(Runtime, RefusesWhatMakesNoSenseAndComputesNothing) {
  const auto image = image_of(llama());
  Instance instance(image, {.threads = 1, .max_rows = 32, .max_logit_rows = 2}, 8);
  const auto tokens = some_tokens(33, image->config().vocab);
  const auto blocks = instance.ids(blocks_from(0, 3));
  std::vector<float> logits(2 * instance.vocab());
  const std::vector<std::byte> before(instance.pool().begin(), instance.pool().end());
  const auto refuses = [&](std::vector<Chunk> chunks, std::span<float> out, const char* why) {
    const Status status = instance.runtime().step(chunks, out);
    ASSERT_FALSE(status) << why;
    EXPECT_EQ(status.error().code, ErrorCode::invalid);
    EXPECT_NE(status.error().message.find(why), std::string::npos) << status.error().message;
    EXPECT_EQ(0, std::memcmp(before.data(), instance.pool().data(), before.size()));
  };
  const std::span<const std::int32_t> all(tokens);
  const Chunk good{.tokens = all.first(5), .blocks = blocks, .logits = true};
  const std::vector<std::int32_t> bad_token{0, static_cast<std::int32_t>(instance.vocab())};
  const std::vector<std::int32_t> negative{-1};
  const std::vector<BlockId> bad_block{instance.ids(blocks_from(7, 1)).front() + 1};
  refuses({{.tokens = {}, .blocks = blocks}}, logits, "no tokens");
  refuses({{.tokens = bad_token, .blocks = blocks}}, logits, "the vocabulary has");
  refuses({{.tokens = negative, .blocks = blocks}}, logits, "the vocabulary has");
  refuses({{.tokens = all.first(5), .blocks = bad_block}}, logits, "the pool has");
  refuses({{.tokens = all.first(20), .blocks = std::span(blocks).first(1)}}, logits, "need 2");
  refuses({{.tokens = all.first(1), .position = 127, .blocks = blocks}}, logits, "need 8");
  refuses({{.tokens = all.first(2), .position = 127, .blocks = blocks}}, logits, "positions");
  refuses({{.tokens = all.first(1), .position = 0xffffffff, .blocks = blocks}}, logits, "positions");
  refuses({{.tokens = all, .blocks = blocks}}, logits, "more than");
  refuses({good, good, good}, logits, "want logits");
  refuses({good, good}, std::span(logits).first(instance.vocab()), "floats for the logits");
  EXPECT_TRUE(instance.runtime().step({}, {}));
  EXPECT_TRUE(instance.runtime().step({&good, 1}, logits));
}

TEST(Runtime, CreationChecksItsArguments) {
  const auto image = image_of(llama());
  const KvLayout layout = kv_layout(image->config());
  const std::size_t block = block_units(layout.block_bytes()) * kBlockUnit;
  std::vector<std::byte> bytes(4 * block + 128);
  std::byte* aligned = bytes.data() + (64 - reinterpret_cast<std::uintptr_t>(bytes.data()) % 64);
  const auto code = [&](std::shared_ptr<const ModelImage> from, std::span<std::byte> pool,
                        RuntimeOptions options) {
    const auto runtime = Runtime::create(std::move(from), pool, options);
    return runtime ? std::string("none") : std::string(to_string(runtime.error().code));
  };
  const std::span<std::byte> pool(aligned, 4 * block);
  EXPECT_EQ(code(image, pool, {.threads = 1}), "none");
  EXPECT_EQ(code(nullptr, pool, {.threads = 1}), "invalid");
  EXPECT_EQ(code(image, {}, {.threads = 1}), "invalid");
  EXPECT_EQ(code(image, pool.first(pool.size() - 1), {.threads = 1}), "none");
  EXPECT_EQ(code(image, pool.first(block - 1), {.threads = 1}), "invalid");
  EXPECT_EQ(code(image, {aligned + 1, block}, {.threads = 1}), "invalid");
  EXPECT_EQ(code(image, pool, {.threads = 1, .max_rows = 0}), "invalid");
  TinyModel odd = llama(DType::f32);
  odd.config.head_dim = 24;
  EXPECT_EQ(code(image_of(odd), pool, {.threads = 1}), "unsupported");
}

TEST(Runtime, RealModelIsInvariant) {
  const auto image = real_image();
  if (image == nullptr) GTEST_SKIP() << "SWITCHYARD_TEST_MODEL names no model";
  const auto tokens = some_tokens(530, image->config().vocab);
  Instance plain(image, {.threads = 2, .max_rows = 530}, 80);
  const std::vector<float> expected = plain.feed(tokens, blocks_from(0, 34), 530);
  for (const std::uint32_t size : {64u, 7u}) {
    EXPECT_TRUE(same_bits(plain.feed(tokens, blocks_from(40, 34, true), size), expected))
        << "chunks of " << size;
  }
  const auto few = std::span(tokens).first(12);
  const std::vector<float> start = plain.feed(few, blocks_from(0, 1), 12);
  EXPECT_TRUE(same_bits(plain.feed(few, blocks_from(5, 1), 1), start));
  for (const char* isa : {"avx512", "avx2", "scalar"}) {
    Instance other(image, {.threads = 3, .max_rows = 64}, 8, isa);
    EXPECT_TRUE(same_bits(other.feed(few, blocks_from(2, 1), 5), start)) << isa;
  }
}

TEST(Runtime, RealModelKnowsTheCapitalOfFrance) {
  const auto image = real_image();
  if (image == nullptr) GTEST_SKIP() << "SWITCHYARD_TEST_MODEL names no model";
  Instance instance(image, {.threads = 2}, 4);
  const std::vector<std::int32_t> prompt{504, 3575, 282, 4649, 314};  // "The capital of France is"
  const std::vector<float> logits = instance.feed(prompt, blocks_from(0, 1), 512);
  EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(), 7042);  // " Paris"
}

}  // namespace
}  // namespace switchyard::model
