// GPT-2's printable alphabet: every byte as one character, so that tokens of any bytes can be written as
// text.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard::model {

// The character that stands for a byte, in UTF-8.
const std::array<std::string, 256>& byte_alphabet();

// The bytes that a token's text stands for; nullopt when it has a character outside of the alphabet.
std::optional<std::string> bytes_of_alphabet(std::string_view text);

// The byte of a token "<0xE2>", or -1.
int byte_token_value(std::string_view text);

}  // namespace switchyard::model
