// Tests: value is name(arguments).
#include <algorithm>
#include <array>

#include "model/jinja_evaluator.h"
#include "model/jinja_text.h"

namespace switchyard::model::jinja {
namespace {

constexpr auto kTests = std::to_array<std::string_view>({
    "!=",          "<",       "<=",       "==",     ">",        ">=",     "boolean", "callable",    "defined",
    "divisibleby", "eq",      "equalto",  "even",   "false",    "float",  "ge",      "greaterthan", "gt",
    "in",          "integer", "iterable", "le",     "lessthan", "lower",  "lt",      "mapping",     "ne",
    "none",        "number",  "odd",      "sameas", "sequence", "string", "true",    "undefined",   "upper",
});

const Value& argument(const Arguments& arguments, std::string_view test) {
  if (arguments.positional.empty())
    raise(ErrorCode::invalid, "the test '{}' is not given what to compare with", test);
  return arguments.positional[0];
}

std::int64_t remainder(const Value& value, std::int64_t by, std::string_view test) {
  std::int64_t whole = 0;
  if (!value.integer(whole))
    raise(ErrorCode::invalid, "the test '{}' is made of a {}", test, value.type_name());
  if (by == 0) raise(ErrorCode::invalid, "division by zero");
  return by == -1 ? 0 : whole % by;
}

std::string_view comparison(std::string_view test) {
  if (test == "eq" || test == "equalto" || test == "==") return "==";
  if (test == "ne" || test == "!=") return "!=";
  if (test == "lt" || test == "lessthan" || test == "<") return "<";
  if (test == "le" || test == "<=") return "<=";
  if (test == "gt" || test == "greaterthan" || test == ">") return ">";
  if (test == "ge" || test == ">=") return ">=";
  if (test == "in") return "in";
  return "";
}

}  // namespace

bool is_test(std::string_view name) { return std::binary_search(kTests.begin(), kTests.end(), name); }

bool apply_test(Evaluator& evaluator, std::string_view name, const Value& value, const Arguments& arguments) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.string() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "sequence") return value.string() || value.list() || value.dict() || value.is_undefined();
  if (name == "iterable") {
    return value.string() || value.list() || value.dict() || value.is_undefined() ||
           value.get<std::shared_ptr<Loop>>();
  }
  if (name == "number") return value.is_number();
  if (name == "integer") return value.get<std::int64_t>() != nullptr;
  if (name == "float") return value.get<double>() != nullptr;
  if (name == "boolean") return value.get<bool>() != nullptr;
  if (name == "true") return value.get<bool>() && *value.get<bool>();
  if (name == "false") return value.get<bool>() && !*value.get<bool>();
  if (name == "callable") {
    return value.get<const Macro*>() || value.get<Function>() || value.get<std::shared_ptr<const Method>>();
  }
  if (name == "even") return remainder(value, 2, name) == 0;
  if (name == "odd") return remainder(value, 2, name) != 0;
  if (name == "divisibleby") {
    std::int64_t by = 0;
    if (!argument(arguments, name).integer(by))
      raise(ErrorCode::invalid, "'divisibleby' is not given a whole number");
    return remainder(value, by, name) == 0;
  }
  if (name == "lower" || name == "upper") {
    const std::string text = to_text(value);
    const std::string other = name == "lower" ? text_upper(text) : text_lower(text);
    const std::string same = name == "lower" ? text_lower(text) : text_upper(text);
    return text == same && text != other;
  }
  if (name == "sameas") {
    const Value& other = argument(arguments, name);
    return value.type_name() == other.type_name() && equal(value, other);
  }
  if (const auto operation = comparison(name); !operation.empty()) {
    return evaluator.compare(operation, value, argument(arguments, name));
  }
  raise(ErrorCode::unsupported, "the test '{}' is not known", name);
}

}  // namespace switchyard::model::jinja
