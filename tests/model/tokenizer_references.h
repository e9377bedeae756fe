// What Hugging Face's tokenizers made of the texts in tests/data; written by
// tools/make_tokenizer_references.py.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "model/tokenizer.h"

namespace switchyard::model {

inline std::filesystem::path test_data() {
  return std::filesystem::path("tests/data");
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return nlohmann::json::parse(file);
}

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// The first ten digits of FNV-1a over the ids.
inline std::string ids_hash(const std::vector<std::int32_t>& ids) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const std::int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ ((static_cast<std::uint32_t>(id) >> shift) & 0xff)) * 0x100000001b3;
    }
  }
  return fmt::format("{:016x}", value).substr(0, 10);
}

// Encodes and decodes every text of the references and compares.
inline void expect_references(const Tokenizer& tokenizer, const std::filesystem::path& path) {
  using Ids = std::vector<std::int32_t>;
  const auto texts = read_json(test_data() / "tokenizer_texts.json");
  const auto references = read_json(path);
  const Tokenizer::EncodeOptions bare{.add_special = false, .parse_special = true};
  const Tokenizer::EncodeOptions plain{.add_special = false, .parse_special = false};

  std::size_t plain_index = 0;
  for (std::size_t i = 0; i < texts["curated"].size(); ++i) {
    const auto text = texts["curated"][i].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text, bare), references["curated"][i].get<Ids>()) << "text: " << text;
    if (text.find('<') == std::string::npos) continue;
    EXPECT_EQ(tokenizer.encode(text, plain), references["plain"][plain_index++].get<Ids>())
        << "plain text: " << text;
  }
  for (std::size_t i = 0; i < texts["broken"].size(); ++i) {
    const auto hex = texts["broken"][i].get<std::string>();
    EXPECT_EQ(tokenizer.encode(from_hex(hex), bare), references["broken"][i].get<Ids>()) << "bytes: " << hex;
  }
  std::istringstream hashes(references["random"].get<std::string>());
  std::string hash;
  int wrong = 0;
  for (const auto& text : texts["random"]) {
    ASSERT_TRUE(hashes >> hash);
    const auto ids = tokenizer.encode(text.get<std::string>(), bare);
    if (ids_hash(ids) != hash && ++wrong <= 5) {
      ADD_FAILURE() << "random text: " << text << " gave " << nlohmann::json(ids);
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tokenizer.encode("Hello world", {}), references["framed"].get<Ids>());
  for (const auto& decode : references["decodes"]) {
    const auto ids = decode[0].is_number() ? references["curated"][decode[0].get<std::size_t>()].get<Ids>()
                                           : decode[0].get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids, decode[1].get<bool>()), decode[2].get<std::string>())
        << nlohmann::json(ids);
  }
}

}  // namespace switchyard::model
