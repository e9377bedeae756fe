// What every tokenizer does, on vocabularies made by hand.
#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "model/tokenizer_alphabet.h"
#include "model/tokenizer_json.h"
#include "model/tokenizer_patterns.h"

namespace switchyard::model {
namespace {

using Ids = std::vector<std::int32_t>;

TokenizerSpec byte_spec() {
  TokenizerSpec spec;
  for (const auto& character : byte_alphabet()) spec.tokens.push_back(character);
  spec.kinds.assign(256, TokenKind::normal);
  return spec;
}

std::int32_t add_token(TokenizerSpec& spec, const std::string& text, TokenKind kind = TokenKind::normal) {
  spec.tokens.push_back(text);
  spec.kinds.push_back(kind);
  return static_cast<std::int32_t>(spec.tokens.size()) - 1;
}

std::unique_ptr<const Tokenizer> made(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::create(std::move(spec));
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

// The merges a+a, aa+aa, ... up to 2^levels letters.
TokenizerSpec doubling_spec(int levels) {
  auto spec = byte_spec();
  std::string piece = "a";
  for (int i = 0; i < levels; ++i) {
    spec.merges.emplace_back(piece, piece);
    piece += piece;
    add_token(spec, piece);
  }
  return spec;
}

TEST(Tokenizer, MergesTheBestPairFirstAndTheLeftmostOfEquals) {
  auto spec = byte_spec();
  const auto ab = add_token(spec, "ab");
  const auto bc = add_token(spec, "bc");
  const auto abc = add_token(spec, "abc");
  spec.merges = {{"b", "c"}, {"a", "b"}, {"a", "bc"}};
  const auto tokenizer = made(spec);
  EXPECT_EQ(tokenizer->encode("abc", {}), (Ids{abc}));
  EXPECT_EQ(tokenizer->encode("ab", {}), (Ids{ab}));
  EXPECT_EQ(tokenizer->encode("xbc", {}), (Ids{'x', bc}));
  EXPECT_EQ(made(doubling_spec(1))->encode("aaa", {}), (Ids{256, 'a'}));
}

TEST(Tokenizer, LongWordsAreNotQuadratic) {
  const auto tokenizer = made(doubling_spec(10));
  // Two million letters would take hours if every merge looked at all of them.
  const auto ids = tokenizer->encode(std::string(2 << 20, 'a'), {});
  EXPECT_EQ(ids, Ids(2 << 10, 265));
}

TEST(Tokenizer, LongRunsOfMarksAreNotQuadratic) {
  auto spec = byte_spec();
  spec.normalize_nfc = true;
  std::string text = "x";
  for (int i = 0; i < 300000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  const auto tokenizer = made(spec);
  const auto decoded = tokenizer->decode(tokenizer->encode(text, {}));
  EXPECT_EQ(decoded.size(), text.size());
  EXPECT_TRUE(decoded.starts_with("x\u0323\u0323"));
}

TEST(Tokenizer, APatternThatRunsAwayIsStopped) {
  auto spec = byte_spec();
  SplitRule rule;
  rule.pattern = "(?:a+a+)+b";
  spec.splits.push_back(rule);
  const auto tokenizer = made(spec);
  const std::string text(5000, 'a');
  EXPECT_EQ(tokenizer->encode(text, {}).size(), text.size());
}

TEST(Tokenizer, ControlTokensComeFromTheirNameAloneAndOnlyWhenAsked) {
  auto spec = byte_spec();
  const auto end = add_token(spec, "<end>", TokenKind::control);
  spec.added.push_back({.id = end, .content = "<end>", .special = true});
  spec.ignore_merges = true;
  spec.bos = end;
  spec.eos = end;
  spec.add_bos = true;
  spec.add_eos = true;
  const auto tokenizer = made(spec);
  EXPECT_EQ(tokenizer->encode("a<end>", {}), (Ids{end, 'a', end, end}));
  EXPECT_EQ(tokenizer->encode("<end>", {.add_special = false, .parse_special = false}),
            (Ids{'<', 'e', 'n', 'd', '>'}));
  EXPECT_EQ(tokenizer->decode(Ids{end, 'a', end}), "a");
  EXPECT_EQ(tokenizer->decode(Ids{end, 'a'}, false), "<end>a");
  EXPECT_EQ(tokenizer->decode(Ids{-5, 'a', 1 << 20}), "a");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_FALSE(tokenizer->is_special(-1));
}

TEST(Tokenizer, ScoresDecideWithoutMerges) {
  TokenizerSpec spec;
  spec.algorithm = TokenizerSpec::Algorithm::sentencepiece_bpe;
  const auto token = [&](const std::string& text, float score, TokenKind kind = TokenKind::normal) {
    spec.scores.push_back(score);
    return add_token(spec, text, kind);
  };
  spec.unknown = token("<unk>", 0, TokenKind::unknown);
  for (int byte = 0; byte < 256; ++byte) token(fmt::format("<0x{:02X}>", byte), 0, TokenKind::byte);
  const auto blank = token("▁", -9);
  const auto a = token("a", -9);
  const auto b = token("b", -9);
  const auto ab = token("ab", -2);
  const auto blank_a = token("▁a", -1);
  spec.byte_fallback = true;
  spec.add_prefix_space = true;
  spec.leading_space = LeadingSpace::one_removed;
  const auto tokenizer = made(spec);
  EXPECT_EQ(tokenizer->encode("ab", {}), (Ids{blank_a, b}));
  EXPECT_EQ(tokenizer->encode("bab", {}), (Ids{blank, b, ab}));
  EXPECT_EQ(tokenizer->encode("é", {}), (Ids{blank, 1 + 0xC3, 1 + 0xA9}));
  EXPECT_EQ(tokenizer->decode(Ids{blank_a, b, blank, a}), "ab a");
  EXPECT_EQ(tokenizer->decode(Ids{blank, 1 + 0xC3, 1 + 0xA9}), "é");
  // As Hugging Face has it: one replacement for every byte of a run that is no text.
  EXPECT_EQ(tokenizer->decode(Ids{1 + 0xC3, 1 + 0xA9, 1 + 0xC3, a}), "\uFFFD\uFFFD\uFFFDa");
  EXPECT_EQ(tokenizer->encode(std::string(200000, 'a'), {}).size(), 200000u);
}

TEST(Tokenizer, SpecsThatContradictThemselvesAreRefused) {
  const auto refused = [](TokenizerSpec spec) {
    const auto tokenizer = Tokenizer::create(std::move(spec));
    EXPECT_FALSE(tokenizer);
    return tokenizer ? ErrorCode::io : tokenizer.error().code;
  };
  auto spec = byte_spec();
  spec.kinds.pop_back();
  EXPECT_EQ(refused(spec), ErrorCode::corrupt);
  spec = byte_spec();
  spec.merges.emplace_back("a", "b");
  EXPECT_EQ(refused(spec), ErrorCode::corrupt);
  spec = byte_spec();
  spec.bos = 256;
  EXPECT_EQ(refused(spec), ErrorCode::corrupt);
  spec = byte_spec();
  spec.added.push_back({.id = 999, .content = "x"});
  EXPECT_EQ(refused(spec), ErrorCode::corrupt);
  for (const auto& [pattern, code] :
       {std::pair("(", ErrorCode::corrupt), std::pair("[[a]]", ErrorCode::unsupported),
        std::pair("\\h", ErrorCode::unsupported), std::pair("(*UTF)a", ErrorCode::unsupported)}) {
    spec = byte_spec();
    spec.splits.push_back({.pattern = pattern});
    EXPECT_EQ(refused(spec), code) << pattern;
  }
}

TEST(Tokenizer, ManyThreadsMayUseOne) {
  auto spec = doubling_spec(4);
  ASSERT_TRUE(apply_gguf_pretokenizer("llama3", spec));
  const auto tokenizer = made(spec);
  const auto expected = tokenizer->encode("aaaa aaa 123 aa's\n\n  a", {.add_special = false});
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        if (tokenizer->encode("aaaa aaa 123 aa's\n\n  a", {.add_special = false}) != expected) ++wrong[t];
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(TokenizerSpec, EveryTruncationAndEveryChangedByteIsRefusedOrRead) {
  auto spec = doubling_spec(2);
  spec.tokens.resize(4);
  spec.kinds.resize(4);
  spec.scores = {1, 2, 3, 4};
  spec.added.push_back({.id = 1, .content = "x", .special = true, .lstrip = true});
  spec.splits.push_back({.pattern = "a+", .behaviour = SplitRule::Behaviour::contiguous, .invert = true});
  spec.chat_template = "{{ x }}";
  spec.bos = 3;
  spec.prefix_style = PrefixStyle::first_unless_there;
  const auto stored = spec.serialize();
  const auto read = TokenizerSpec::parse(stored);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(*read == spec);
  for (std::size_t size = 0; size < stored.size(); ++size) {
    const auto cut = TokenizerSpec::parse(std::span(stored).first(size));
    ASSERT_FALSE(cut) << size;
    EXPECT_EQ(cut.error().code, ErrorCode::corrupt);
  }
  for (std::size_t i = 0; i < stored.size(); ++i) {
    auto changed = stored;
    changed[i] = std::byte{0xff};
    static_cast<void>(TokenizerSpec::parse(changed));
  }
  auto longer = stored;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(TokenizerSpec::parse(longer));
}

GgufMetadata gguf(std::string_view model, std::string_view pre) {
  GgufMetadata metadata;
  std::vector<std::string_view> tokens;
  for (const auto& character : byte_alphabet()) tokens.push_back(character);
  tokens.push_back("<end>");
  std::vector<std::int64_t> kinds(256, 1);
  kinds.push_back(3);
  metadata.values.emplace("tokenizer.ggml.model", model);
  metadata.values.emplace("tokenizer.ggml.pre", pre);
  metadata.values.emplace("tokenizer.ggml.tokens", GgufArray(tokens));
  metadata.values.emplace("tokenizer.ggml.token_type", GgufArray(kinds));
  metadata.values.emplace("tokenizer.ggml.merges", GgufArray(std::vector<std::string_view>{}));
  metadata.values.emplace("tokenizer.ggml.eos_token_id", std::uint64_t{256});
  metadata.values.emplace("tokenizer.chat_template", std::string_view("{{ x }}"));
  return metadata;
}

TEST(TokenizerFromGguf, ReadsWhatTheFileSays) {
  const auto spec = tokenizer_spec_from_gguf(gguf("gpt2", "qwen2"));
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_TRUE(spec->normalize_nfc);
  EXPECT_EQ(spec->eos, 256);
  EXPECT_EQ(spec->bos, -1);
  EXPECT_EQ(spec->chat_template, "{{ x }}");
  ASSERT_EQ(spec->added.size(), 1u);
  EXPECT_TRUE(spec->added[0].special);
}

TEST(TokenizerFromGguf, EveryKnownWayOfCuttingCompiles) {
  for (const char* name : {"default", "gpt-2", "smollm", "llama-bpe", "llama3", "qwen2", "mistral", "tekken",
                           "gpt-4o", "deepseek-v3"}) {
    auto spec = tokenizer_spec_from_gguf(gguf("gpt2", name));
    ASSERT_TRUE(spec) << spec.error().message;
    const auto tokenizer = made(*spec);
    const std::string text = "Hello World's 12345 你好  \n\n x";
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, {})), text) << name;
  }
}

TEST(TokenizerFromGguf, WhatIsNotKnownIsNamed) {
  auto spec = tokenizer_spec_from_gguf(gguf("gpt2", "frobnicate"));
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::unsupported);
  EXPECT_NE(spec.error().message.find("frobnicate"), std::string::npos);
  spec = tokenizer_spec_from_gguf(gguf("t5", "default"));
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::unsupported);
  EXPECT_EQ(tokenizer_spec_from_gguf(GgufMetadata{}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(tokenizer_spec_from_gguf(gguf("llama", "")).error().code, ErrorCode::corrupt);
}

// A small tokenizer.json with one part replaced.
nlohmann::json small_json() {
  nlohmann::json json;
  for (std::size_t byte = 0; byte < 256; ++byte) json["model"]["vocab"][byte_alphabet()[byte]] = byte;
  json["model"]["type"] = "BPE";
  json["model"]["merges"] = nlohmann::json::array();
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  json["decoder"] = {{"type", "ByteLevel"}};
  json["added_tokens"] = {{{"id", 256}, {"content", "<s>"}, {"special", true}}};
  return json;
}

TEST(TokenizerFromJson, TheConfigurationBesideItCounts) {
  const auto spec =
      tokenizer_spec_from_json(small_json().dump(),
                               R"({"bos_token": {"content": "<s>"}, "eos_token": "<s>", "add_bos_token": true,
          "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})",
                               "");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->bos, 256);
  EXPECT_EQ(spec->eos, 256);
  EXPECT_TRUE(spec->add_bos);
  EXPECT_FALSE(spec->add_eos);
  EXPECT_EQ(spec->chat_template, "d");
  const auto with_file = tokenizer_spec_from_json(small_json().dump(), R"({"chat_template": "x"})", "file");
  ASSERT_TRUE(with_file);
  EXPECT_EQ(with_file->chat_template, "file");
}

TEST(TokenizerFromJson, WhatIsNotKnownIsNamed) {
  const auto refused = [](const char* pointer, const nlohmann::json& value, std::string_view named) {
    auto json = small_json();
    json[nlohmann::json::json_pointer(pointer)] = value;
    const auto spec = tokenizer_spec_from_json(json.dump(), "", "");
    ASSERT_FALSE(spec) << pointer;
    EXPECT_EQ(spec.error().code, ErrorCode::unsupported) << spec.error().message;
    EXPECT_NE(spec.error().message.find(named), std::string::npos) << spec.error().message;
  };
  refused("/model/type", "Unigram", "Unigram");
  refused("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  refused("/normalizer", {{"type", "Lowercase"}}, "Lowercase");
  refused("/pre_tokenizer", {{"type", "BertPreTokenizer"}}, "BertPreTokenizer");
  refused("/pre_tokenizer", nullptr, "ByteLevel");
  refused("/post_processor", {{"type", "RobertaProcessing"}}, "RobertaProcessing");
  refused("/decoder", {{"type", "WordPiece"}}, "WordPiece");
}

TEST(TokenizerFromJson, WhatContradictsItselfIsRefused) {
  const auto refused = [](const char* pointer, const nlohmann::json& value) {
    auto json = small_json();
    json[nlohmann::json::json_pointer(pointer)] = value;
    const auto spec = tokenizer_spec_from_json(json.dump(), "", "");
    ASSERT_FALSE(spec) << pointer;
    EXPECT_EQ(spec.error().code, ErrorCode::corrupt) << spec.error().message;
  };
  refused("/model/vocab", 7);
  refused("/model/vocab/x", 4000000);
  refused("/model/vocab/x", -1);
  refused("/model/vocab/xx", 5);
  refused("/model/merges", {"a"});
  refused("/model/merges", {"a b c"});
  refused("/model/unk_token", "nothing");
  refused("/added_tokens/0/id", 5);
  refused("/added_tokens/0/special", "yes");
  EXPECT_FALSE(tokenizer_spec_from_json("", "", ""));
  EXPECT_FALSE(tokenizer_spec_from_json("[]", "", ""));
  EXPECT_FALSE(tokenizer_spec_from_json(small_json().dump(), "[", ""));
  EXPECT_FALSE(tokenizer_spec_from_json(std::string(100000, '['), "", ""));
}

TEST(Tokenizer, StopsWhereThereAreTooManyAndOnlyThere) {
  // A byte that the vocabulary lacks vanishes, and may not be counted.
  for (const bool lacking : {false, true}) {
    auto spec = byte_spec();
    if (lacking) spec.kinds['z'] = TokenKind::unused;
    const std::string x = spec.tokens['x'];
    add_token(spec, x + x);
    add_token(spec, x + x + x + x);
    spec.merges = {{x, x}, {x + x, x + x}};
    const auto tokenizer = made(spec);
    for (const std::string& text : {std::string(100, 'x'), std::string(50, 'x') + std::string(60, 'z'),
                                    std::string(200, 'z'), std::string("a"), std::string()}) {
      const auto all = tokenizer->encode(text, {});
      for (std::size_t most = 0; most <= all.size() + 2; ++most) {
        const auto cut = tokenizer->encode(text, {.max_tokens = most});
        if (all.size() <= most) {
          EXPECT_EQ(cut, all) << text << " " << most;
        } else {
          EXPECT_GT(cut.size(), most) << text << " " << most;
        }
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::model
