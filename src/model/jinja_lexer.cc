#include "model/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "model/jinja_text.h"
#include "model/jinja_value.h"
#include "model/unicode.h"

namespace switchyard::model::jinja {
namespace {

constexpr std::size_t kMaxTokens = 1 << 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool in_name(char c) { return starts_name(c) || is_digit(c); }
bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string normalized_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  // keep_trailing_newline is off.
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    put(TokenType::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool here(std::string_view what) const { return rest().starts_with(what); }

  [[noreturn]] void wrong(std::string_view what) const {
    raise(ErrorCode::corrupt, "line {}: {}", line_, what);
  }

  void put(TokenType type, std::string text) {
    if (tokens_.size() >= kMaxTokens)
      raise(ErrorCode::exhausted, "line {}: more than {} tokens", line_, kMaxTokens);
    tokens_.push_back({type, std::move(text), line_});
  }

  // Moves on, counting lines.
  void advance(std::size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
    if (count > 0) line_starting_ = source_[at_ - 1] == '\n';
  }

  void skip_space() {
    std::size_t end = at_;
    while (end < source_.size()) {
      const Utf8Step step = utf8_step(source_, end);
      if (!is_space(step.code)) break;
      end += step.length;
    }
    advance(end - at_);
  }

  // Text up to the next tag, then the tag.
  void text() {
    std::size_t open = at_;
    for (;; ++open) {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        put_text(rest());
        advance(source_.size() - at_);
        return;
      }
      const char kind = source_[open + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
    }
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    auto before = rest().substr(0, open - at_);
    const bool signed_tag = sign == '-' || sign == '+';
    if (sign == '-') {
      before = text_strip(before, std::nullopt, false, true);
    } else if (sign != '+' && kind != '{') {
      before = without_indent(before);
    }
    put_text(before);
    advance(open - at_ + 2 + (signed_tag ? 1 : 0));
    if (kind == '#') {
      comment();
    } else if (kind == '{') {
      put(TokenType::output_begin, "");
      code("}}", TokenType::output_end);
    } else if (const std::size_t length = raw_tag("raw"); length != 0) {
      raw(length);
    } else {
      put(TokenType::block_begin, "");
      code("%}", TokenType::block_end);
    }
  }

  void put_text(std::string_view text) {
    if (!text.empty()) put(TokenType::text, std::string(text));
  }

  // lstrip_blocks: white space between the start of the line and a block goes.
  std::string_view without_indent(std::string_view before) const {
    const auto newline = before.rfind('\n');
    const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    if (start == 0 && !line_starting_) return before;
    return text_strip(before.substr(start), std::nullopt, true, false).empty() ? before.substr(0, start)
                                                                               : before;
  }

  void after_block(bool trim) {
    if (trim && here("\n")) advance(1);
  }

  void comment() {
    const auto close = rest().find("#}");
    if (close == std::string_view::npos) wrong("a comment does not end");
    const char sign = close > 0 ? source_[at_ + close - 1] : '\0';
    advance(close + 2);
    if (sign == '-') {
      skip_space();
    } else {
      after_block(sign != '+');
    }
  }

  // Length of "  raw %}" from here (with white space after it where the tag says so), or 0.
  std::size_t raw_tag(std::string_view name) const {
    std::size_t i = at_;
    while (i < source_.size() && is_blank(source_[i])) ++i;
    if (!std::string_view(source_).substr(i).starts_with(name)) return 0;
    i += name.size();
    while (i < source_.size() && is_blank(source_[i])) ++i;
    const auto tail = std::string_view(source_).substr(i);
    for (std::string_view close : {"-%}", "+%}", "%}"}) {
      if (tail.starts_with(close)) return i + close.size() - at_;
    }
    return 0;
  }

  void raw(std::size_t length) {
    advance(length);
    if (source_[at_ - 3] == '-') skip_space();
    for (std::size_t open = source_.find("{%", at_); open != std::string::npos;
         open = source_.find("{%", open + 2)) {
      const std::size_t begin = at_;
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      at_ = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      const std::size_t end = raw_tag("endraw");
      const std::size_t tag = at_;
      at_ = begin;
      if (end == 0) continue;
      auto inside = rest().substr(0, open - begin);
      if (sign == '-') {
        inside = text_strip(inside, std::nullopt, false, true);
      } else if (sign != '+') {
        inside = without_indent(inside);
      }
      put_text(inside);
      advance(tag + end - begin);
      const char close_sign = source_[at_ - 3];
      if (close_sign == '-') {
        skip_space();
      } else {
        after_block(close_sign != '+');
      }
      return;
    }
    wrong("a raw block does not end");
  }

  // Tokens up to `close`.
  void code(std::string_view close, TokenType end) {
    std::string open;  // brackets that wait for their partners
    for (;;) {
      skip_space();
      if (at_ >= source_.size()) wrong("a tag does not end");
      if (open.empty()) {
        const char sign = source_[at_];
        const bool signed_end = (sign == '-' || (sign == '+' && end == TokenType::block_end)) &&
                                rest().substr(1).starts_with(close);
        if (signed_end || here(close)) {
          put(end, "");
          advance(close.size() + (signed_end ? 1 : 0));
          if (signed_end && sign == '-') {
            skip_space();
          } else if (end == TokenType::block_end) {
            after_block(!signed_end);
          }
          return;
        }
      }
      const char c = source_[at_];
      if (starts_name(c)) {
        std::size_t length = 1;
        while (at_ + length < source_.size() && in_name(source_[at_ + length])) ++length;
        put(TokenType::name, std::string(rest().substr(0, length)));
        advance(length);
      } else if (is_digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        symbol(open);
      }
    }
  }

  void number() {
    std::string digits;
    std::size_t i = at_;
    const auto at = [&](std::size_t place) { return place < source_.size() ? source_[place] : '\0'; };
    if (at(i) == '0' && (at(i + 1) == 'x' || at(i + 1) == 'X')) {
      digits = "0x";
      for (i += 2; hex_digit(at(i)) >= 0 || at(i) == '_'; ++i) {
        if (at(i) != '_') digits += at(i);
      }
      put(TokenType::integer, digits);
      advance(i - at_);
      return;
    }
    const auto take = [&] {
      for (; is_digit(at(i)) || (at(i) == '_' && is_digit(at(i + 1))); ++i) {
        if (at(i) != '_') digits += at(i);
      }
    };
    take();
    bool real = false;
    if (at(i) == '.' && is_digit(at(i + 1))) {
      real = true;
      digits += '.';
      ++i;
      take();
    }
    const std::size_t sign = at(i + 1) == '+' || at(i + 1) == '-' ? 1 : 0;
    if ((at(i) == 'e' || at(i) == 'E') && is_digit(at(i + 1 + sign))) {
      real = true;
      digits += 'e';
      if (sign != 0) digits += at(i + 1);
      i += 1 + sign;
      take();
    }
    put(real ? TokenType::real : TokenType::integer, digits);
    advance(i - at_);
  }

  void string(char quote) {
    std::string out;
    std::size_t i = at_ + 1;
    for (;; ++i) {
      if (i >= source_.size()) wrong("a string does not end");
      const char c = source_[i];
      if (c == quote) break;
      if (c != '\\') {
        out += c;
        continue;
      }
      if (++i >= source_.size()) wrong("a string does not end");
      i = escape(i, out);
    }
    put(TokenType::string, utf8_valid(out) ? std::move(out) : utf8_repair(out));
    advance(i + 1 - at_);
  }

  // The escape whose letter is at i; returns its last place.
  std::size_t escape(std::size_t i, std::string& out) {
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = source_[i];
    if (const auto place = kLetters.find(c); place != std::string_view::npos) {
      out += kMeanings[place];
      return i;
    }
    if (c == '\n') return i;
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      std::size_t length = 0;
      while (length < 3 && i + length < source_.size() && source_[i + length] >= '0' &&
             source_[i + length] <= '7') {
        code = code * 8 + static_cast<char32_t>(source_[i + length++] - '0');
      }
      utf8_append(out, code);
      return i + length - 1;
    }
    const std::size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length == 0) {
      out += '\\';
      out += c;
      return i;
    }
    char32_t code = 0;
    for (std::size_t digit = 1; digit <= length; ++digit) {
      const int value = i + digit < source_.size() ? hex_digit(source_[i + digit]) : -1;
      if (value < 0) wrong("an escape in a string lacks digits");
      code = code * 16 + static_cast<char32_t>(value);
    }
    utf8_append(out, code);
    return i + length;
  }

  void symbol(std::string& open) {
    static constexpr std::array<std::string_view, 6> kPairs = {"//", "**", "==", "!=", ">=", "<="};
    for (const auto pair : kPairs) {
      if (!here(pair)) continue;
      put(TokenType::symbol, std::string(pair));
      advance(2);
      return;
    }
    const char c = source_[at_];
    if (std::string_view("+-*/%~<>=.,:|()[]{};").find(c) == std::string_view::npos) {
      wrong(fmt::format("the character '{}' means nothing in a tag", c));
    }
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char partner = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != partner) wrong(fmt::format("a '{}' too many", c));
      open.pop_back();
    }
    put(TokenType::symbol, std::string(1, c));
    advance(1);
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace switchyard::model::jinja
