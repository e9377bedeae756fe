// A parsed template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/jinja_value.h"

namespace switchyard::model::jinja {

struct Expression;
using ExpressionPointer = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind : std::uint8_t {
    constant,   // value
    name,       // text
    list,       // parts
    tuple,      // parts
    mapping,    // parts: key, value, key, value, ...
    attribute,  // parts[0].text
    item,       // parts[0][parts[1]]
    slice,      // parts[0][parts[1]:parts[2]:parts[3]]; any but the first may be null
    call,       // parts[0](parts[1...], named)
    filter,     // parts[0]|text(parts[1...], named); parts[0] is null in {% filter %} and block sets
    test,       // parts[0] is text(parts[1...]); negated
    negative,
    positive,
    logical_not,
    logical_and,
    logical_or,
    binary,       // text: + - * / // % **
    concatenate,  // parts
    compare,      // parts[0] operators[0] parts[1] operators[1] ...
    conditional,  // parts[0] if parts[1] else parts[2]; the last may be null
  };
  Kind kind = Kind::constant;
  int line = 0;
  int depth = 1;
  bool negated = false;
  std::string text;
  Value value;
  std::vector<ExpressionPointer> parts;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
  std::vector<std::string> operators;
};

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind : std::uint8_t {
    text,          // text
    output,        // first
    condition,     // branches; an else has no test
    loop,          // target in first, where second may be null; body, other
    assign,        // target = first
    assign_block,  // target = body, through first if that is not null
    macro,         // text(parameters) body
    call,          // first with caller (parameters) body
    filter,        // body through first
    scope,         // with: targets = values; body
    generation,    // body
    break_loop,
    continue_loop,
  };
  struct Parameter {
    std::string name;
    ExpressionPointer fallback;
  };
  struct Branch {
    ExpressionPointer test;
    Body body;
  };
  Kind kind = Kind::text;
  int line = 0;
  std::string text;
  ExpressionPointer target;
  ExpressionPointer first;
  ExpressionPointer second;
  std::vector<Parameter> parameters;
  std::vector<std::pair<ExpressionPointer, ExpressionPointer>> bindings;
  std::vector<Branch> branches;
  Body body;
  Body other;
};

// Throws Failure: corrupt (syntax, with the line), unsupported (a statement, filter or test that is not
// known).
Body parse(std::string_view source);

// Names that the interpreter has; the parser refuses others.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace switchyard::model::jinja
