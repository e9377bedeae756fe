// The tokenizer of the default model, from its GGUF file, against Hugging Face's ids.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "model/gguf.h"
#include "tokenizer_references.h"

namespace switchyard::model {
namespace {

class SmolLM2Tokenizer : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("SWITCHYARD_TEST_MODEL");
    if (path == nullptr || *path == '\0') GTEST_SKIP() << "SWITCHYARD_TEST_MODEL does not name the default model's GGUF file";
    std::ifstream stream(path, std::ios::binary);
    ASSERT_TRUE(stream.good()) << path;
    // The metadata is in the first megabytes; the tensors' directory needs the whole file.
    file_.assign(std::istreambuf_iterator<char>(stream), {});
    const auto gguf = GgufFile::parse(std::as_bytes(std::span(file_.data(), file_.size())));
    ASSERT_TRUE(gguf) << gguf.error().message;
    auto spec = tokenizer_spec_from_gguf(gguf->metadata);
    ASSERT_TRUE(spec) << spec.error().message;
    auto tokenizer = Tokenizer::create(std::move(*spec));
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    tokenizer_ = std::move(*tokenizer);
  }
  std::string file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_F(SmolLM2Tokenizer, GivesTheIdsOfHuggingFace) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152u);
  EXPECT_EQ(tokenizer_->spec().bos, 1);
  EXPECT_EQ(tokenizer_->spec().eos, 2);
  EXPECT_FALSE(tokenizer_->spec().add_bos);
  EXPECT_TRUE(tokenizer_->is_special(2));
  EXPECT_EQ(tokenizer_->token_bytes(2), "<|im_end|>");
  expect_references(*tokenizer_, test_data() / "tokenizer_smollm2.json");
}

TEST_F(SmolLM2Tokenizer, SurvivesStorage) {
  const auto stored = tokenizer_->spec().serialize();
  const auto read = TokenizerSpec::parse(stored);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(*read == tokenizer_->spec());
}

TEST_F(SmolLM2Tokenizer, StreamsWhatItDecodes) {
  const auto texts = read_json(test_data() / "tokenizer_texts.json");
  for (const auto& text : texts["curated"]) {
    const auto ids = tokenizer_->encode(text.get<std::string>(), {});
    TextStream stream(*tokenizer_);
    std::string out;
    for (const auto id : ids) out += stream.push(id);
    out += stream.finish();
    EXPECT_EQ(out, tokenizer_->decode(ids));
  }
}

}  // namespace
}  // namespace switchyard::model
