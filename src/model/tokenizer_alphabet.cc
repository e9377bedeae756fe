#include "model/tokenizer_alphabet.h"

#include <charconv>

#include "model/unicode.h"

namespace switchyard::model {
namespace {

// Bytes that stand for themselves: printable ASCII and Latin-1. The others follow from U+0100 on, in order.
bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, 0x200> bytes;  // by code point; -1: none
  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t code = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      utf8_append(characters[static_cast<std::size_t>(byte)], code);
      bytes[code] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet made;
  return made;
}

}  // namespace

const std::array<std::string, 256>& byte_alphabet() { return alphabet().characters; }

std::optional<std::string> bytes_of_alphabet(std::string_view text) {
  const auto& bytes = alphabet().bytes;
  std::string out;
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    if (step.state != Utf8State::valid || step.code >= bytes.size() || bytes[step.code] < 0)
      return std::nullopt;
    out += static_cast<char>(bytes[step.code]);
    position += step.length;
  }
  return out;
}

int byte_token_value(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = -1;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
  return error == std::errc() && end == text.data() + 5 ? value : -1;
}

}  // namespace switchyard::model
