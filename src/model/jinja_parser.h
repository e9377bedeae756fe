// What the two halves of the parser share: the stream of tokens, and expressions.
#pragma once

#include <string_view>
#include <vector>

#include "model/jinja_lexer.h"
#include "model/jinja_syntax.h"

namespace switchyard::model::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  // The last token (end) is never passed.
  Token next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool is_name(std::string_view name) const { return now().type == TokenType::name && now().text == name; }
  bool is_symbol(std::string_view symbol) const {
    return now().type == TokenType::symbol && now().text == symbol;
  }
  bool skip_name(std::string_view name) { return is_name(name) && (next(), true); }
  bool skip_symbol(std::string_view symbol) { return is_symbol(symbol) && (next(), true); }
  Token expect(TokenType type, std::string_view what) {
    if (now().type != type) wrong(fmt::format("{} is expected before '{}'", what, now().text));
    return next();
  }
  void expect_symbol(std::string_view symbol) {
    if (!skip_symbol(symbol)) wrong(fmt::format("'{}' is expected before '{}'", symbol, now().text));
  }
  [[noreturn]] void wrong(std::string_view what) const {
    raise(ErrorCode::corrupt, "line {}: {}", now().line, what);
  }

 private:
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}
  // "a", or "a, b" as a tuple. Without `conditional`, "if" ends it.
  ExpressionPointer tuple(bool conditional = true);
  ExpressionPointer expression(bool conditional = true);
  // What can be assigned to; with `attributes`, "namespace.name" too.
  ExpressionPointer target(bool attributes = false);
  // "|a|b", applied to `value`, which may be null.
  ExpressionPointer filters_of(ExpressionPointer value);
  // The same without the first bar.
  ExpressionPointer filters_of_block();

 private:
  using Kind = Expression::Kind;
  struct Deeper;
  ExpressionPointer make(Kind kind, std::vector<ExpressionPointer> parts);
  template <class... Parts>
  ExpressionPointer of(Kind kind, Parts... parts);
  void note_depth(Expression& made, const Expression* part) const;
  ExpressionPointer alternative();
  ExpressionPointer conjunction();
  ExpressionPointer negation();
  ExpressionPointer comparison();
  ExpressionPointer sum();
  ExpressionPointer concatenation();
  ExpressionPointer product();
  ExpressionPointer power();
  ExpressionPointer unary(bool filters = true);
  ExpressionPointer primary();
  ExpressionPointer postfix(ExpressionPointer value);
  ExpressionPointer filtered(ExpressionPointer value);
  ExpressionPointer filter(ExpressionPointer value);
  ExpressionPointer test(ExpressionPointer value);
  ExpressionPointer subscript(ExpressionPointer value);
  ExpressionPointer mapping();
  void arguments(Expression& call);
  std::vector<ExpressionPointer> items_until(std::string_view close);

  TokenStream& tokens_;
  int depth_ = 0;
};

}  // namespace switchyard::model::jinja
