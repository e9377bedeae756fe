#include <gtest/gtest.h>

#include "model/tokenizer.h"
#include "model/tokenizer_alphabet.h"

namespace switchyard::model {
namespace {

// Token i is byte i; token 256 is special.
std::unique_ptr<const Tokenizer> byte_tokenizer() {
  TokenizerSpec spec;
  for (const auto& character : byte_alphabet()) spec.tokens.push_back(character);
  spec.tokens.push_back("<end>");
  spec.kinds.assign(257, TokenKind::normal);
  AddedToken end;
  end.id = 256;
  end.content = "<end>";
  end.special = true;
  spec.added.push_back(end);
  auto tokenizer = Tokenizer::create(spec);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

TEST(TextStream, HoldsACharacterBackUntilItIsWhole) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(0x9F), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "😀");
  EXPECT_EQ(stream.finish(), "");
}

TEST(TextStream, WhatCannotBecomeACharacterIsReplaced) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer);
  EXPECT_EQ(stream.push(0xFF), "\uFFFD");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('x'), "\uFFFDx");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(TextStream, SpecialTokensAreLeftOutOrShown) {
  const auto tokenizer = byte_tokenizer();
  TextStream without(*tokenizer);
  EXPECT_EQ(without.push(256), "");
  TextStream with(*tokenizer, false);
  EXPECT_EQ(with.push(256), "<end>");
}

TEST(TextStream, AnyBytesGiveWhatDecodeGives) {
  const auto tokenizer = byte_tokenizer();
  std::uint64_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 12; ++i) {
      state = state * 6364136223846793005 + 1442695040888963407;
      // Mostly bytes of which characters are made.
      ids.push_back(static_cast<std::int32_t>((state >> 33) % 3 == 0 ? (state >> 40) % 256
                                                                     : 0x80 + (state >> 40) % 128));
    }
    TextStream stream(*tokenizer);
    std::string out;
    for (const auto id : ids) out += stream.push(id);
    out += stream.finish();
    ASSERT_EQ(out, tokenizer->decode(ids)) << round;
  }
}

}  // namespace
}  // namespace switchyard::model
