// Cuts a template into text and tokens, with Jinja's rules for white space: trim_blocks and lstrip_blocks on,
// the template's last line break dropped, as transformers sets them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::model::jinja {

enum class TokenType : std::uint8_t {
  text,
  output_begin,
  output_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  symbol,  // operators and brackets, as written
  end,
};

struct Token {
  TokenType type = TokenType::end;
  std::string text;
  int line = 1;
};

// Ends with a token of type end. Throws Failure (corrupt) with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace switchyard::model::jinja
