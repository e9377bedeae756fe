// tokenizer.json of small tokenizers, trained for these tests, against Hugging Face's ids.
#include "model/tokenizer_json.h"

#include <gtest/gtest.h>

#include "tokenizer_references.h"

namespace switchyard::model {
namespace {

class TrainedTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(TrainedTokenizer, GivesTheIdsOfHuggingFace) {
  const auto directory = test_data() / (std::string("tokenizer_") + GetParam());
  auto spec = tokenizer_spec_from_directory(directory);
  ASSERT_TRUE(spec) << spec.error().message;
  const auto stored = TokenizerSpec::parse(spec->serialize());
  ASSERT_TRUE(stored) << stored.error().message;
  EXPECT_TRUE(*stored == *spec);
  const auto tokenizer = Tokenizer::create(*stored);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  expect_references(**tokenizer, directory / "references.json");
}

INSTANTIATE_TEST_SUITE_P(All, TrainedTokenizer,
                         testing::Values("digits", "gpt2", "llama3", "qwen2", "metaspace", "legacy",
                                         "unfused", "gemma"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace switchyard::model
