// GGUF files: what a good one says, and that a bad one is refused whatever is wrong with it.
#include "model/gguf.h"

#include <gtest/gtest.h>

#include "model/checkpoint_parts.h"
#include "model/gguf_builder.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

std::string error_of(std::span<const std::byte> bytes) {
  const auto file = GgufFile::parse(bytes);
  return file ? "no error" : file.error().message;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(Gguf, EveryTypeOfMetadata) {
  GgufBuilder builder;
  builder.scalar<std::uint8_t>("u8", 0, 200)
      .scalar<std::int8_t>("i8", 1, -5)
      .scalar<std::uint16_t>("u16", 2, 60000);
  builder.scalar<std::int16_t>("i16", 3, -6)
      .scalar<std::uint32_t>("u32", 4, 4000000000u)
      .scalar<std::int32_t>("i32", 5, 7);
  builder.number("f32", 0.5f).boolean("yes", true).boolean("no", false).string("text", "hello");
  builder.scalar<std::uint64_t>("u64", 10, ~0ull)
      .scalar<std::int64_t>("i64", 11, -8)
      .scalar<double>("f64", 12, 0.25);
  builder.strings("words", {"a", "", "bc"}).numbers("numbers", {1, -2, 3});
  const std::vector<float> reals = {0.5f, -1.5f};
  builder.array<float>("reals", 6, reals);
  const std::vector<std::uint8_t> truths = {1, 0};
  builder.array<std::uint8_t>("truths", 7, truths);
  const auto bytes = builder.build();
  const auto file = GgufFile::parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata& metadata = file->metadata;
  EXPECT_EQ(metadata.integer("u8"), 200u);
  EXPECT_EQ(metadata.integer("i8"), std::nullopt);  // negative
  EXPECT_EQ(metadata.real("i8"), -5.0);
  EXPECT_EQ(metadata.integer("u16"), 60000u);
  EXPECT_EQ(metadata.integer("i32"), 7u);
  EXPECT_EQ(metadata.integer("u32"), 4000000000u);
  EXPECT_EQ(metadata.integer("u64"), ~0ull);
  EXPECT_EQ(metadata.real("f32"), 0.5);
  EXPECT_EQ(metadata.real("f64"), 0.25);
  EXPECT_EQ(metadata.integer("f32"), std::nullopt);
  EXPECT_EQ(metadata.boolean("yes"), true);
  EXPECT_EQ(metadata.boolean("no"), false);
  EXPECT_EQ(metadata.boolean("u8"), std::nullopt);
  EXPECT_EQ(metadata.string("text"), "hello");
  EXPECT_EQ(metadata.string("absent"), std::nullopt);
  ASSERT_NE(metadata.strings("words"), nullptr);
  EXPECT_EQ(*metadata.strings("words"), (std::vector<std::string_view>{"a", "", "bc"}));
  EXPECT_EQ(metadata.strings("numbers"), nullptr);
  EXPECT_EQ(metadata.integers("numbers"), (std::vector<std::int64_t>{1, -2, 3}));
  EXPECT_EQ(metadata.integers("truths"), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(metadata.reals("reals"), (std::vector<double>{0.5, -1.5}));
  EXPECT_EQ(metadata.reals("numbers"), (std::vector<double>{1, -2, 3}));
  EXPECT_EQ(metadata.reals("words"), std::nullopt);
  EXPECT_EQ(metadata.integers("text"), std::nullopt);
}

TEST(Gguf, Versions) {
  GgufBuilder builder;
  builder.version = 2;
  EXPECT_EQ(error_of(builder.build()), "no error");
  for (const std::uint32_t version : {0u, 1u, 4u}) {
    builder.version = version;
    const auto bytes = builder.build();
    EXPECT_EQ(GgufFile::parse(bytes).error().code, ErrorCode::unsupported) << version;
  }
  builder.version = 3u << 24;
  EXPECT_TRUE(contains(error_of(builder.build()), "big-endian"));
}

TEST(Gguf, AbsurdCountsAllocateNothing) {
  const GgufBuilder empty;
  for (const std::uint64_t count : {std::uint64_t{1}, std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
    EXPECT_TRUE(contains(error_of(empty.build(count, 0)), "tensors"));
    EXPECT_TRUE(contains(error_of(empty.build(0, count)), "metadata keys"));
    for (const std::uint32_t type : {0u, 7u, 8u, 10u, 12u}) {
      const auto bytes = GgufBuilder().begin_array("a", type, count << 8 | 100).build();
      EXPECT_TRUE(contains(error_of(bytes), "more than the file can hold")) << type << " " << count;
    }
  }
  std::vector<std::byte> wide((1u << 24) + 1);
  const auto bytes = GgufBuilder().array<std::byte>("a", 0, wide).build();
  EXPECT_TRUE(contains(error_of(bytes), "more than 16777216 values"));
}

TEST(Gguf, MetadataThatIsRefused) {
  EXPECT_TRUE(
      contains(error_of(GgufBuilder().number("a", 1u).number("a", 2u).build()), "'a' is there twice"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().number("", 1u).build()), "key of 0 bytes"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().number("a\x1b[2J", 1u).build()), "no plain text"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().scalar<std::uint32_t>("a", 13, 0).build()), "unknown type 13"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().scalar<std::uint8_t>("a", 7, 2).build()), "truth value"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().begin_array("a", 9, 1).build()), "array of arrays"));
  EXPECT_TRUE(contains(error_of(GgufBuilder().begin_array("a", 99, 0).build()), "unknown type 99"));
}

TEST(Gguf, TensorsThatAreRefused) {
  const std::vector<std::byte> bytes(64);
  const auto with = [&](auto change) {
    GgufBuilder builder;
    builder.tensor("a", {16}, 0, bytes);
    change(builder);
    return error_of(builder.build());
  };
  EXPECT_EQ(with([](GgufBuilder&) {}), "no error");
  EXPECT_TRUE(contains(with([&](GgufBuilder& file) { file.tensor("a", {16}, 0, bytes); }), "there twice"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {16}, 0, 32); }), "overlaps"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {16}, 0, 64); }), "truncated"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {16}, 0, ~31ull); }), "truncated"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {16}, 0, 65); }), "multiple of 32"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {}, 0, 64); }), "0 dimensions"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) {
                         file.directory("b", {1, 1, 1, 1, 1}, 0, 64);
                       }),
                       "5 dimensions"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {0}, 0, 64); }), "impossible size"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) {
                         file.directory("b", {1ull << 32, 1ull << 32}, 0, 64);
                       }),
                       "impossible"));
  EXPECT_TRUE(
      contains(with([](GgufBuilder& file) { file.directory("b", {1ull << 62}, 0, 64); }), "impossible"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("b", {33}, 8, 64); }), "do not fill"));
  EXPECT_TRUE(contains(with([](GgufBuilder& file) { file.directory("", {16}, 0, 64); }), "name of 0 bytes"));
}

TEST(Gguf, Alignment) {
  const std::vector<std::byte> bytes(64, std::byte{7});
  GgufBuilder builder;
  builder.alignment = 256;
  builder.number("general.alignment", 256u).tensor("a", {16}, 0, bytes).tensor("b", {16}, 0, bytes);
  const auto data = builder.build();
  const auto file = GgufFile::parse(data);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->data_offset % 256, 0u);
  EXPECT_EQ(file->tensors[1].offset, 256u);
  for (const std::uint32_t alignment : {0u, 1u, 48u, 1u << 21}) {
    EXPECT_TRUE(
        contains(error_of(GgufBuilder().number("general.alignment", alignment).build()), "power of two"));
  }
  EXPECT_TRUE(contains(error_of(GgufBuilder().string("general.alignment", "32").build()), "power of two"));
}

// Every file that is cut short is refused, and no read leaves it (the address sanitizer looks on).
TEST(Gguf, EveryTruncationIsRefused) {
  const auto bytes = tiny_gguf({}).build();
  const auto whole = GgufFile::parse(bytes);
  ASSERT_TRUE(whole);
  for (std::size_t size = 0; size < bytes.size(); size += size < whole->data_offset ? 1 : 997) {
    // A copy of its own, so that a byte too far is seen.
    const std::vector<std::byte> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_FALSE(GgufFile::parse(part)) << size;
  }
}

TEST(Gguf, NoBitOfTheHeaderBreaksTheReader) {
  auto bytes = tiny_gguf({}).build();
  const std::size_t header = GgufFile::parse(bytes)->data_offset;
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < header * 8; bit += bit < 4096 ? 1 : 5) {
    const auto flip = static_cast<std::byte>(1u << (bit % 8));
    bytes[bit / 8] ^= flip;
    const auto parts = read_gguf_bytes(bytes, "tiny");
    if (!parts) {
      EXPECT_FALSE(parts.error().message.empty());
      ++refused;
    }
    bytes[bit / 8] ^= flip;
  }
  EXPECT_GT(refused, 100u);
}

TEST(Gguf, AbsurdSizesOfAModelAreRefused) {
  for (const char* key : {"llama.block_count", "llama.embedding_length", "llama.attention.head_count",
                          "llama.feed_forward_length", "llama.context_length", "llama.attention.key_length",
                          "llama.attention.head_count_kv"}) {
    for (const std::uint32_t value : {0u, 0xffffffffu}) {
      TinyModel model;
      auto bytes = tiny_gguf(model).build();
      const auto at = std::search(bytes.begin(), bytes.end(), reinterpret_cast<const std::byte*>(key),
                                  reinterpret_cast<const std::byte*>(key) + std::string_view(key).size());
      ASSERT_NE(at, bytes.end());
      std::memcpy(&*at + std::string_view(key).size() + 4, &value, sizeof(value));
      const auto parts = read_gguf_bytes(bytes, "tiny");
      ASSERT_FALSE(parts) << key << " " << value;
    }
  }
}

}  // namespace
}  // namespace switchyard::model
