// Expressions of a template, by recursive descent; binding strengths are Jinja's.
#include <charconv>

#include "model/jinja_parser.h"

namespace switchyard::model::jinja {
namespace {

// Of brackets in brackets, and of chains such as a.b.c or a + b + c: what evaluates them is recursive.
constexpr int kMaxDepth = 250;
constexpr int kMaxRecursion = 100;

template <class... Parts>
std::vector<ExpressionPointer> vector_of(Parts... parts) {
  std::vector<ExpressionPointer> out;
  (out.push_back(std::move(parts)), ...);
  return out;
}

}  // namespace

// Counts the recursion while it lives.
struct ExpressionParser::Deeper {
  explicit Deeper(ExpressionParser& owner) : parser(owner) {
    if (++parser.depth_ > kMaxRecursion) parser.tokens_.wrong("an expression is nested too deeply");
  }
  ~Deeper() { --parser.depth_; }
  ExpressionParser& parser;
};

void ExpressionParser::note_depth(Expression& made, const Expression* part) const {
  if (part == nullptr) return;
  made.depth = std::max(made.depth, part->depth + 1);
  if (made.depth > kMaxDepth) tokens_.wrong("an expression is nested too deeply");
}

ExpressionPointer ExpressionParser::make(Kind kind, std::vector<ExpressionPointer> parts) {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->line = tokens_.now().line;
  made->parts = std::move(parts);
  for (const auto& part : made->parts) note_depth(*made, part.get());
  return made;
}

template <class... Parts>
ExpressionPointer ExpressionParser::of(Kind kind, Parts... parts) {
  return make(kind, vector_of(std::move(parts)...));
}

ExpressionPointer ExpressionParser::tuple(bool conditional) {
  auto first = expression(conditional);
  if (!tokens_.is_symbol(",")) return first;
  auto items = vector_of(std::move(first));
  while (tokens_.skip_symbol(",")) {
    const auto type = tokens_.now().type;
    if (type == TokenType::output_end || type == TokenType::block_end || tokens_.is_symbol(")")) break;
    items.push_back(expression(conditional));
  }
  return make(Kind::tuple, std::move(items));
}

ExpressionPointer ExpressionParser::expression(bool conditional) {
  const Deeper deeper(*this);
  auto value = alternative();
  if (!conditional) return value;
  int chained = 0;
  while (tokens_.skip_name("if")) {
    if (++chained > kMaxRecursion) tokens_.wrong("an expression is nested too deeply");
    auto test = alternative();
    auto other = tokens_.skip_name("else") ? expression() : nullptr;
    value = of(Kind::conditional, std::move(value), std::move(test), std::move(other));
  }
  return value;
}

ExpressionPointer ExpressionParser::target(bool attributes) {
  std::vector<ExpressionPointer> items;
  bool several = false;
  do {
    if (!items.empty()) several = true;
    if (several && (tokens_.is_name("in") || tokens_.is_symbol("="))) break;
    if (tokens_.skip_symbol("(")) {
      const Deeper deeper(*this);
      items.push_back(target());
      tokens_.expect_symbol(")");
      continue;
    }
    auto name = of(Kind::name);
    name->text = tokens_.expect(TokenType::name, "a name").text;
    if (attributes && tokens_.skip_symbol(".")) {
      auto attribute = of(Kind::attribute, std::move(name));
      attribute->text = tokens_.expect(TokenType::name, "an attribute").text;
      name = std::move(attribute);
    }
    items.push_back(std::move(name));
  } while (tokens_.skip_symbol(","));
  if (!several) return std::move(items.front());
  return make(Kind::tuple, std::move(items));
}

ExpressionPointer ExpressionParser::alternative() {
  auto left = conjunction();
  while (tokens_.skip_name("or")) left = of(Kind::logical_or, std::move(left), conjunction());
  return left;
}

ExpressionPointer ExpressionParser::conjunction() {
  auto left = negation();
  while (tokens_.skip_name("and")) left = of(Kind::logical_and, std::move(left), negation());
  return left;
}

ExpressionPointer ExpressionParser::negation() {
  if (!tokens_.skip_name("not")) return comparison();
  const Deeper deeper(*this);
  return of(Kind::logical_not, negation());
}

ExpressionPointer ExpressionParser::comparison() {
  auto first = sum();
  std::vector<ExpressionPointer> parts;
  std::vector<std::string> operators;
  for (;;) {
    const Token& token = tokens_.now();
    if (token.type == TokenType::symbol && (token.text == "==" || token.text == "!=" || token.text == "<" ||
                                            token.text == "<=" || token.text == ">" || token.text == ">=")) {
      operators.push_back(tokens_.next().text);
    } else if (tokens_.skip_name("in")) {
      operators.emplace_back("in");
    } else if (tokens_.is_name("not") && tokens_.ahead().type == TokenType::name &&
               tokens_.ahead().text == "in") {
      tokens_.next();
      tokens_.next();
      operators.emplace_back("not in");
    } else {
      break;
    }
    if (parts.empty()) parts.push_back(std::move(first));
    parts.push_back(sum());
  }
  if (operators.empty()) return first;
  auto made = make(Kind::compare, std::move(parts));
  made->operators = std::move(operators);
  return made;
}

ExpressionPointer ExpressionParser::sum() {
  auto left = concatenation();
  while (tokens_.is_symbol("+") || tokens_.is_symbol("-")) {
    const auto text = tokens_.next().text;
    left = of(Kind::binary, std::move(left), concatenation());
    left->text = text;
  }
  return left;
}

ExpressionPointer ExpressionParser::concatenation() {
  auto first = product();
  if (!tokens_.is_symbol("~")) return first;
  auto parts = vector_of(std::move(first));
  while (tokens_.skip_symbol("~")) parts.push_back(product());
  return make(Kind::concatenate, std::move(parts));
}

ExpressionPointer ExpressionParser::product() {
  auto left = power();
  while (tokens_.is_symbol("*") || tokens_.is_symbol("/") || tokens_.is_symbol("//") ||
         tokens_.is_symbol("%")) {
    const auto text = tokens_.next().text;
    left = of(Kind::binary, std::move(left), power());
    left->text = text;
  }
  return left;
}

ExpressionPointer ExpressionParser::power() {
  auto left = unary();
  while (tokens_.skip_symbol("**")) {
    left = of(Kind::binary, std::move(left), unary());
    left->text = "**";
  }
  return left;
}

ExpressionPointer ExpressionParser::unary(bool filters) {
  const Deeper deeper(*this);
  ExpressionPointer value;
  if (tokens_.skip_symbol("-")) {
    value = of(Kind::negative, unary(false));
  } else if (tokens_.skip_symbol("+")) {
    value = of(Kind::positive, unary(false));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return filters ? filtered(std::move(value)) : std::move(value);
}

ExpressionPointer ExpressionParser::primary() {
  const Token token = tokens_.now();
  auto made = of(Kind::constant);
  switch (token.type) {
    case TokenType::name:
      tokens_.next();
      if (token.text == "true" || token.text == "True") {
        made->value = true;
      } else if (token.text == "false" || token.text == "False") {
        made->value = false;
      } else if (token.text == "none" || token.text == "None") {
        made->value = None{};
      } else {
        made->kind = Kind::name;
        made->text = token.text;
      }
      return made;
    case TokenType::string: {
      std::string text;
      while (tokens_.now().type == TokenType::string) text += tokens_.next().text;
      made->value = Value(std::move(text));
      return made;
    }
    case TokenType::integer: {
      tokens_.next();
      std::int64_t value = 0;
      const bool hex = token.text.starts_with("0x");
      const auto digits = std::string_view(token.text).substr(hex ? 2 : 0);
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
      if (error != std::errc()) tokens_.wrong(fmt::format("the number {} is too large", token.text));
      made->value = value;
      return made;
    }
    case TokenType::real: {
      tokens_.next();
      double value = 0;
      std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
      made->value = value;
      return made;
    }
    case TokenType::symbol:
      break;
    default:
      tokens_.wrong("an expression is missing");
  }
  if (tokens_.skip_symbol("(")) {
    if (tokens_.skip_symbol(")")) return make(Kind::tuple, {});
    auto inner = tuple();
    tokens_.expect_symbol(")");
    return inner;
  }
  if (tokens_.skip_symbol("[")) return make(Kind::list, items_until("]"));
  if (tokens_.skip_symbol("{")) return mapping();
  tokens_.wrong(fmt::format("an expression cannot begin with '{}'", token.text));
}

std::vector<ExpressionPointer> ExpressionParser::items_until(std::string_view close) {
  std::vector<ExpressionPointer> items;
  while (!tokens_.skip_symbol(close)) {
    if (!items.empty()) {
      tokens_.expect_symbol(",");
      if (tokens_.skip_symbol(close)) break;
    }
    items.push_back(expression());
  }
  return items;
}

ExpressionPointer ExpressionParser::mapping() {
  std::vector<ExpressionPointer> items;
  while (!tokens_.skip_symbol("}")) {
    if (!items.empty()) {
      tokens_.expect_symbol(",");
      if (tokens_.skip_symbol("}")) break;
    }
    items.push_back(expression());
    tokens_.expect_symbol(":");
    items.push_back(expression());
  }
  return make(Kind::mapping, std::move(items));
}

ExpressionPointer ExpressionParser::postfix(ExpressionPointer value) {
  for (;;) {
    if (tokens_.skip_symbol(".")) {
      if (tokens_.now().type == TokenType::integer) {
        auto index = primary();
        value = of(Kind::item, std::move(value), std::move(index));
        continue;
      }
      value = of(Kind::attribute, std::move(value));
      value->text = tokens_.expect(TokenType::name, "an attribute").text;
    } else if (tokens_.skip_symbol("[")) {
      value = subscript(std::move(value));
    } else if (tokens_.is_symbol("(")) {
      value = of(Kind::call, std::move(value));
      arguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPointer ExpressionParser::subscript(ExpressionPointer value) {
  auto parts = vector_of(std::move(value));
  const auto part = [&]() -> ExpressionPointer {
    return tokens_.is_symbol(":") || tokens_.is_symbol("]") ? nullptr : expression();
  };
  parts.push_back(part());
  if (!tokens_.is_symbol(":")) {
    if (!parts.back()) tokens_.wrong("a subscript is missing");
    if (tokens_.is_symbol(","))
      raise(ErrorCode::unsupported, "line {}: subscripts with commas are not known", tokens_.now().line);
    tokens_.expect_symbol("]");
    return make(Kind::item, std::move(parts));
  }
  while (parts.size() < 4 && tokens_.skip_symbol(":")) parts.push_back(part());
  parts.resize(4);
  tokens_.expect_symbol("]");
  return make(Kind::slice, std::move(parts));
}

void ExpressionParser::arguments(Expression& call) {
  tokens_.expect_symbol("(");
  bool first = true;
  while (!tokens_.skip_symbol(")")) {
    if (!first) {
      tokens_.expect_symbol(",");
      if (tokens_.skip_symbol(")")) break;
    }
    first = false;
    if (tokens_.is_symbol("*") || tokens_.is_symbol("**")) {
      raise(ErrorCode::unsupported, "line {}: unpacking of arguments is not known", tokens_.now().line);
    }
    if (tokens_.now().type == TokenType::name && tokens_.ahead().type == TokenType::symbol &&
        tokens_.ahead().text == "=") {
      const auto name = tokens_.next().text;
      tokens_.next();
      call.named.emplace_back(name, expression());
      note_depth(call, call.named.back().second.get());
    } else {
      if (!call.named.empty()) tokens_.wrong("an argument without a name follows one with a name");
      call.parts.push_back(expression());
      note_depth(call, call.parts.back().get());
    }
  }
}

ExpressionPointer ExpressionParser::filtered(ExpressionPointer value) {
  for (;;) {
    if (tokens_.skip_symbol("|")) {
      value = filter(std::move(value));
    } else if (tokens_.skip_name("is")) {
      value = test(std::move(value));
    } else if (tokens_.is_symbol("(")) {
      value = of(Kind::call, std::move(value));
      arguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPointer ExpressionParser::filters_of(ExpressionPointer value) {
  while (tokens_.skip_symbol("|")) value = filter(std::move(value));
  return value;
}

ExpressionPointer ExpressionParser::filters_of_block() { return filters_of(filter(nullptr)); }

ExpressionPointer ExpressionParser::filter(ExpressionPointer value) {
  auto made = of(Kind::filter, std::move(value));
  made->text = tokens_.expect(TokenType::name, "a filter's name").text;
  if (!is_filter(made->text)) {
    raise(ErrorCode::unsupported, "line {}: the filter '{}' is not known", tokens_.now().line, made->text);
  }
  if (tokens_.is_symbol("(")) arguments(*made);
  return made;
}

ExpressionPointer ExpressionParser::test(ExpressionPointer value) {
  const bool negated = tokens_.skip_name("not");
  auto made = of(Kind::test, std::move(value));
  made->negated = negated;
  made->text = tokens_.expect(TokenType::name, "a test's name").text;
  if (!is_test(made->text)) {
    raise(ErrorCode::unsupported, "line {}: the test '{}' is not known", tokens_.now().line, made->text);
  }
  const Token& token = tokens_.now();
  if (tokens_.is_symbol("(")) {
    arguments(*made);
    return made;
  }
  const bool word = token.type == TokenType::name && token.text != "else" && token.text != "or" &&
                    token.text != "and" && token.text != "if" && token.text != "is" && token.text != "in" &&
                    token.text != "not" && token.text != "recursive";
  const bool literal = token.type == TokenType::string || token.type == TokenType::integer ||
                       token.type == TokenType::real || tokens_.is_symbol("[") || tokens_.is_symbol("{");
  if (word || literal) {
    const Deeper deeper(*this);
    made->parts.push_back(postfix(primary()));
    note_depth(*made, made->parts.back().get());
  }
  return made;
}

}  // namespace switchyard::model::jinja
