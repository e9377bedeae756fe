// Statements of a template; expressions are in jinja_expressions.cc.
#include "model/jinja_parser.h"

namespace switchyard::model::jinja {
namespace {

constexpr int kMaxBlocks = 60;

bool ends(const Token& token, std::initializer_list<std::string_view> names) {
  for (const auto name : names) {
    if (token.text == name) return true;
  }
  return false;
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Body run() {
    Body body = statements({});
    if (tokens_.now().type != TokenType::end) tokens_.wrong("a closing tag without its block");
    return body;
  }

 private:
  // Up to a block whose name is in `until`, of which "{%" is taken and the name not; or to the end.
  Body statements(std::initializer_list<std::string_view> until) {
    if (++depth_ > kMaxBlocks) tokens_.wrong(fmt::format("blocks are nested more than {} deep", kMaxBlocks));
    Body body;
    for (;;) {
      const Token& token = tokens_.now();
      if (token.type == TokenType::text) {
        Statement& made = body.emplace_back();
        made.line = token.line;
        made.text = token.text;
        tokens_.next();
      } else if (token.type == TokenType::output_begin) {
        Statement made;
        made.kind = Statement::Kind::output;
        made.line = token.line;
        tokens_.next();
        made.first = expressions_.tuple();
        tokens_.expect(TokenType::output_end, "}}");
        body.push_back(std::move(made));
      } else if (token.type == TokenType::block_begin) {
        tokens_.next();
        if (ends(tokens_.now(), until)) break;
        block(body);
      } else {
        if (until.size() != 0)
          tokens_.wrong(fmt::format("the block that ends with '{}' is not closed", *(until.end() - 1)));
        break;
      }
    }
    --depth_;
    return body;
  }

  void close_tag() { tokens_.expect(TokenType::block_end, "%}"); }

  // The name that statements() stopped at, which closes the block.
  void end_block() {
    tokens_.next();
    if (tokens_.now().type == TokenType::name) tokens_.next();  // {% endmacro name %}
    close_tag();
  }

  void block(Body& body) {
    const Token& token = tokens_.now();
    if (token.type != TokenType::name) tokens_.wrong("a block without a name");
    Statement made;
    made.line = token.line;
    const std::string name = token.text;
    tokens_.next();
    if (name == "for") {
      loop(made);
    } else if (name == "if") {
      condition(made);
    } else if (name == "set") {
      assign(made);
    } else if (name == "macro") {
      macro(made);
    } else if (name == "call") {
      call(made);
    } else if (name == "filter") {
      made.kind = Statement::Kind::filter;
      made.first = expressions_.filters_of_block();
      close_tag();
      made.body = statements({"endfilter"});
      end_block();
    } else if (name == "with") {
      scope(made);
    } else if (name == "generation") {
      made.kind = Statement::Kind::generation;
      close_tag();
      made.body = statements({"endgeneration"});
      end_block();
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) tokens_.wrong(fmt::format("'{}' outside of a loop", name));
      made.kind = name == "break" ? Statement::Kind::break_loop : Statement::Kind::continue_loop;
      close_tag();
    } else if (ends(token_of(name), {"endfor", "endif", "endset", "endmacro", "endcall", "endfilter",
                                     "endwith", "else", "elif", "endgeneration", "endraw"})) {
      tokens_.wrong(fmt::format("'{}' without its block", name));
    } else {
      raise(ErrorCode::unsupported, "line {}: the statement '{}' is not known", made.line, name);
    }
    body.push_back(std::move(made));
  }

  static Token token_of(const std::string& name) { return {TokenType::name, name, 0}; }

  void loop(Statement& made) {
    made.kind = Statement::Kind::loop;
    made.target = expressions_.target();
    if (!tokens_.skip_name("in")) tokens_.wrong("'for' lacks its 'in'");
    made.first = expressions_.tuple(false);
    if (tokens_.skip_name("if")) made.second = expressions_.expression();
    if (tokens_.is_name("recursive")) {
      raise(ErrorCode::unsupported, "line {}: recursive loops are not known", made.line);
    }
    close_tag();
    ++loops_;
    made.body = statements({"else", "endfor"});
    --loops_;
    if (tokens_.is_name("else")) {
      tokens_.next();
      close_tag();
      made.other = statements({"endfor"});
    }
    end_block();
  }

  void condition(Statement& made) {
    made.kind = Statement::Kind::condition;
    for (bool more = true; more;) {
      auto test = expressions_.tuple(false);
      close_tag();
      auto body = statements({"elif", "else", "endif"});
      made.branches.push_back({std::move(test), std::move(body)});
      more = tokens_.skip_name("elif");
    }
    if (tokens_.skip_name("else")) {
      close_tag();
      made.branches.push_back({nullptr, statements({"endif"})});
    }
    end_block();
  }

  void assign(Statement& made) {
    made.target = expressions_.target(true);
    if (tokens_.skip_symbol("=")) {
      made.kind = Statement::Kind::assign;
      made.first = expressions_.tuple();
      close_tag();
      return;
    }
    made.kind = Statement::Kind::assign_block;
    if (tokens_.is_symbol("|")) made.first = expressions_.filters_of(nullptr);
    close_tag();
    made.body = statements({"endset"});
    end_block();
  }

  void parameters(Statement& made) {
    tokens_.expect_symbol("(");
    while (!tokens_.is_symbol(")")) {
      if (!made.parameters.empty()) {
        tokens_.expect_symbol(",");
        if (tokens_.is_symbol(")")) break;
      }
      Statement::Parameter parameter{tokens_.expect(TokenType::name, "a parameter").text, nullptr};
      if (tokens_.skip_symbol("=")) {
        parameter.fallback = expressions_.expression();
      } else if (!made.parameters.empty() && made.parameters.back().fallback) {
        tokens_.wrong("a parameter without a default follows one that has it");
      }
      made.parameters.push_back(std::move(parameter));
    }
    tokens_.next();
  }

  // A macro's body cannot leave a loop around it.
  Body own_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = statements({end});
    loops_ = loops;
    end_block();
    return body;
  }

  void macro(Statement& made) {
    made.kind = Statement::Kind::macro;
    made.text = tokens_.expect(TokenType::name, "a macro's name").text;
    parameters(made);
    close_tag();
    made.body = own_body("endmacro");
  }

  void call(Statement& made) {
    made.kind = Statement::Kind::call;
    made.text = "caller";
    if (tokens_.is_symbol("(")) parameters(made);
    made.first = expressions_.expression();
    if (made.first->kind != Expression::Kind::call) tokens_.wrong("a call block without a call");
    close_tag();
    made.body = own_body("endcall");
  }

  void scope(Statement& made) {
    made.kind = Statement::Kind::scope;
    while (tokens_.now().type != TokenType::block_end) {
      if (!made.bindings.empty()) tokens_.expect_symbol(",");
      auto target = expressions_.target();
      tokens_.expect_symbol("=");
      auto value = expressions_.expression();
      made.bindings.emplace_back(std::move(target), std::move(value));
    }
    close_tag();
    made.body = statements({"endwith"});
    end_block();
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace switchyard::model::jinja
