// The tokenizer of small test checkpoints: byte-level BPE with ChatML's special tokens and a few merges.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard::model {

inline constexpr std::uint32_t kTinyTokens = 264;
inline constexpr std::string_view kTinyChatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// A byte-level vocabulary: 256 bytes, three special tokens, a few merged words.
struct TinyVocabulary {
  std::vector<std::string> tokens;
  std::vector<std::string> merges;  // "left right"
  std::vector<std::int32_t> kinds;  // as GGUF numbers them
};

inline TinyVocabulary tiny_vocabulary() {
  TinyVocabulary vocabulary;
  // GPT-2's printable alphabet: bytes that print are themselves, the others U+0100 and up.
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const std::uint32_t code = prints ? byte : next++;
    std::string token;
    if (code < 0x80) {
      token += static_cast<char>(code);
    } else {
      token += static_cast<char>(0xc0 | (code >> 6));
      token += static_cast<char>(0x80 | (code & 0x3f));
    }
    vocabulary.tokens.push_back(token);
    vocabulary.kinds.push_back(1);
  }
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    vocabulary.tokens.emplace_back(special);
    vocabulary.kinds.push_back(3);
  }
  for (const auto& [left, right] :
       {std::pair{"t", "h"}, {"th", "e"}, {"i", "n"}, {"e", "r"}, {"\u0120", "the"}}) {
    vocabulary.merges.push_back(std::string(left) + " " + right);
    vocabulary.tokens.push_back(std::string(left) + right);
    vocabulary.kinds.push_back(1);
  }
  return vocabulary;
}

// tokenizer.json as Hugging Face's tokenizers write it for byte-level BPE.
inline nlohmann::json tiny_tokenizer_json() {
  const TinyVocabulary vocabulary = tiny_vocabulary();
  nlohmann::json vocab = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    vocab[vocabulary.tokens[id]] = id;
    if (vocabulary.kinds[id] != 3) continue;
    added.push_back({{"id", id},
                     {"content", vocabulary.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", vocabulary.merges}}}};
}

}  // namespace switchyard::model
