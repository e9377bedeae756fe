// Unicode as tokenizers need it: UTF-8 with replacement, character classes, NFC.
//
// Pure functions; any thread. Classes follow Unicode's general categories as utf8proc has them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard::model {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State {
  valid,
  invalid,    // `length` bytes can begin no character: they become one U+FFFD
  truncated,  // the text ends inside of a character that could still become valid
};

struct Utf8Step {
  char32_t code = 0xFFFD;
  std::size_t length = 0;
  Utf8State state = Utf8State::valid;
};

// The character at `position` (which must be inside). Ill-formed bytes are taken in the longest runs that
// could begin a character, as the Unicode standard recommends and Python and Rust do.
Utf8Step utf8_step(std::string_view text, std::size_t position);

void utf8_append(std::string& out, char32_t code);

bool utf8_valid(std::string_view text);

// Every ill-formed run becomes U+FFFD.
std::string utf8_repair(std::string_view text);

bool is_white_space(char32_t code);  // the property White_Space
bool is_numeric(char32_t code);      // Nd, Nl, No
bool is_punctuation(char32_t code);  // P*, and ASCII's symbols
bool is_printable(char32_t code);    // as str.isprintable has it: no control, format, private, unassigned; no
                                     // blank but U+0020
bool is_word(char32_t code);         // alphabetic, mark, decimal digit, connector, joiner

// Normalisation form C of valid UTF-8. O(n log n), whatever the text.
std::string to_nfc(std::string_view text);

}  // namespace switchyard::model
