// Expressions: what operators, subscripts and attributes mean, as in Python.
#include <algorithm>
#include <cmath>
#include <limits>

#include "model/jinja_deeper.h"
#include "model/jinja_text.h"

namespace switchyard::model::jinja {
namespace {

[[noreturn]] void undefined_use(const Undefined& undefined) {
  raise(ErrorCode::invalid, "{}", undefined.what ? *undefined.what : "an undefined value is used");
}

void refuse_undefined(const Value& value) {
  if (const auto* undefined = value.get<Undefined>()) undefined_use(*undefined);
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

[[noreturn]] void overflow() { raise(ErrorCode::invalid, "a whole number grows beyond 64 bits"); }

Value integer_operation(std::string_view operation, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  if (operation == "+") {
    if (__builtin_add_overflow(a, b, &out)) overflow();
  } else if (operation == "-") {
    if (__builtin_sub_overflow(a, b, &out)) overflow();
  } else if (operation == "*") {
    if (__builtin_mul_overflow(a, b, &out)) overflow();
  } else if (operation == "**") {
    if (b < 0) {
      if (a == 0) raise(ErrorCode::invalid, "division by zero");
      return std::pow(static_cast<double>(a), static_cast<double>(b));
    }
    if (b > 63 && (a > 1 || a < -1)) overflow();
    // Only 0, 1 and -1 have powers beyond; there only "odd, even or none" counts.
    const std::int64_t times = b > 63 ? 2 + b % 2 : b;
    out = 1;
    for (std::int64_t i = 0; i < times; ++i) {
      if (__builtin_mul_overflow(out, a, &out)) overflow();
    }
  } else {
    if (b == 0) raise(ErrorCode::invalid, "division by zero");
    if (operation == "/") return static_cast<double>(a) / static_cast<double>(b);
    if (b == -1) {
      if (operation == "%") return std::int64_t{0};
      if (__builtin_sub_overflow(std::int64_t{0}, a, &out)) overflow();
    } else {
      out = operation == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
    }
  }
  return out;
}

Value real_operation(std::string_view operation, double a, double b) {
  if (operation == "+") return a + b;
  if (operation == "-") return a - b;
  if (operation == "*") return a * b;
  if (operation == "**") return std::pow(a, b);
  if (b == 0) raise(ErrorCode::invalid, "division by zero");
  if (operation == "/") return a / b;
  if (operation == "//") return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

}  // namespace

Value Evaluator::evaluate(const Expression& expression) {
  using Kind = Expression::Kind;
  const Deeper deeper(*this);
  work(1);
  const auto& parts = expression.parts;
  switch (expression.kind) {
    case Kind::constant:
      return expression.value;
    case Kind::name:
      return lookup(expression.text);
    case Kind::list:
    case Kind::tuple: {
      std::vector<Value> items;
      items.reserve(parts.size());
      for (const auto& part : parts) items.push_back(evaluate(*part));
      return list(std::move(items), expression.kind == Kind::tuple);
    }
    case Kind::mapping: {
      std::vector<std::pair<Value, Value>> items;
      for (std::size_t i = 0; i + 1 < parts.size(); i += 2) {
        Value key = evaluate(*parts[i]);
        items.emplace_back(std::move(key), evaluate(*parts[i + 1]));
      }
      bytes_ += items.size() * 4 * sizeof(Value);
      return Value::dict(std::move(items));
    }
    case Kind::attribute:
      return attribute(evaluate(*parts[0]), expression.text);
    case Kind::item: {
      const Value value = evaluate(*parts[0]);
      return item(value, evaluate(*parts[1]));
    }
    case Kind::slice:
      return evaluate_slice(expression);
    case Kind::call:
      return evaluate_call(expression, nullptr);
    case Kind::filter:
      return evaluate_filter(expression, nullptr);
    case Kind::test: {
      const Value value = evaluate(*parts[0]);
      return apply_test(*this, expression.text, value, arguments_of(expression)) != expression.negated;
    }
    case Kind::negative:
    case Kind::positive: {
      const Value value = evaluate(*parts[0]);
      refuse_undefined(value);
      if (!value.is_number()) raise(ErrorCode::invalid, "a {} has no sign", value.type_name());
      std::int64_t whole = 0;
      const bool negative = expression.kind == Kind::negative;
      if (!value.integer(whole)) return negative ? -value.number() : value.number();
      return integer_operation(negative ? "-" : "+", 0, whole);
    }
    case Kind::logical_not:
      return !evaluate(*parts[0]).truthy();
    case Kind::logical_and: {
      Value left = evaluate(*parts[0]);
      return left.truthy() ? evaluate(*parts[1]) : left;
    }
    case Kind::logical_or: {
      Value left = evaluate(*parts[0]);
      return left.truthy() ? left : evaluate(*parts[1]);
    }
    case Kind::binary:
      return evaluate_binary(expression);
    case Kind::concatenate: {
      std::string out;
      for (const auto& part : parts) {
        out += to_text(evaluate(*part));
        if (out.size() > limits_.output_bytes) break;  // text() says so
      }
      return text(std::move(out));
    }
    case Kind::compare:
      return evaluate_compare(expression);
    case Kind::conditional:
      if (evaluate(*parts[1]).truthy()) return evaluate(*parts[0]);
      return parts[2] ? evaluate(*parts[2])
                      : Value::undefined("the condition is false and there is no 'else'");
  }
  return {};
}

Arguments Evaluator::arguments_of(const Expression& expression) {
  Arguments arguments;
  for (std::size_t i = 1; i < expression.parts.size(); ++i)
    arguments.positional.push_back(evaluate(*expression.parts[i]));
  for (const auto& [name, value] : expression.named) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

Value Evaluator::evaluate_call(const Expression& expression, const Macro* caller) {
  const Value callee = evaluate(*expression.parts[0]);
  Arguments arguments = arguments_of(expression);
  if (caller != nullptr) arguments.named.emplace_back("caller", Value(caller));
  return call(callee, arguments);
}

// `input` stands for the innermost missing part of a chain of filters.
Value Evaluator::evaluate_filter(const Expression& expression, const Value* input) {
  const Deeper deeper(*this);
  const auto& part = expression.parts[0];
  Value value;
  if (!part) {
    value = input != nullptr ? *input : Value();
  } else if (input != nullptr && part->kind == Expression::Kind::filter) {
    value = evaluate_filter(*part, input);
  } else {
    value = evaluate(*part);
  }
  work(1 + value.weight());
  return apply_filter(*this, expression.text, value, arguments_of(expression));
}

bool Evaluator::contains(const Value& container, const Value& value) {
  work(container.weight());
  if (const auto* text = container.string()) {
    const auto* part = value.string();
    if (part == nullptr) {
      refuse_undefined(value);
      raise(ErrorCode::invalid, "a {} cannot be inside of a string", value.type_name());
    }
    return text->find(*part) != std::string::npos;
  }
  if (const auto* dict = container.dict()) return dict->find(value) != nullptr;
  const auto items = items_of(container);
  return std::any_of(items.begin(), items.end(), [&](const Value& item) { return equal(item, value); });
}

bool Evaluator::compare(std::string_view operation, const Value& left, const Value& right) {
  if (operation == "in") return contains(right, left);
  if (operation == "not in") return !contains(right, left);
  work(std::min(left.weight(), right.weight()));
  if (operation == "==") return equal(left, right);
  if (operation == "!=") return !equal(left, right);
  refuse_undefined(left);
  refuse_undefined(right);
  if (operation == "<") return less(left, right);
  if (operation == ">") return less(right, left);
  if (operation == "<=") return less(left, right) || equal(left, right);
  return less(right, left) || equal(left, right);
}

Value Evaluator::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.parts[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1]);
    if (!compare(expression.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_binary(const Expression& expression) {
  const Value left = evaluate(*expression.parts[0]);
  const Value right = evaluate(*expression.parts[1]);
  const std::string_view operation = expression.text;
  refuse_undefined(left);
  refuse_undefined(right);
  if (left.is_number() && right.is_number()) {
    std::int64_t a = 0;
    std::int64_t b = 0;
    if (left.integer(a) && right.integer(b)) return integer_operation(operation, a, b);
    return real_operation(operation, left.number(), right.number());
  }
  if (operation == "+" && left.string() && right.string()) return text(*left.string() + *right.string());
  if (operation == "+" && left.list() && right.list() && left.list()->tuple == right.list()->tuple) {
    work(left.list()->items.size() + right.list()->items.size());
    auto items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    return list(std::move(items), left.list()->tuple);
  }
  std::int64_t times = 0;
  const bool left_count = left.integer(times);
  if (operation == "*" && (left_count || right.integer(times))) {
    const Value& value = left_count ? right : left;
    times = std::max<std::int64_t>(times, 0);
    const std::size_t size = value.string() ? value.string()->size()
                             : value.list() ? value.list()->items.size()
                                            : 0;
    if (size > 0 && static_cast<std::uint64_t>(times) > limits_.output_bytes / size) {
      raise(ErrorCode::exhausted, "a value is repeated beyond {} parts", limits_.output_bytes);
    }
    if (size == 0 && (value.string() || value.list())) return value;
    work(static_cast<std::uint64_t>(times) * size / 16 + 1);
    if (const auto* unit = value.string()) {
      std::string out;
      out.reserve(static_cast<std::size_t>(times) * size);
      for (std::int64_t i = 0; i < times; ++i) out += *unit;
      return text(std::move(out));
    }
    if (const auto* unit = value.list()) {
      work(static_cast<std::uint64_t>(times) * size);
      std::vector<Value> out;
      for (std::int64_t i = 0; i < times; ++i) out.insert(out.end(), unit->items.begin(), unit->items.end());
      return list(std::move(out), unit->tuple);
    }
  }
  if (operation == "%" && left.string())
    raise(ErrorCode::unsupported, "formatting of strings with % is not known");
  raise(ErrorCode::invalid, "'{}' does not work between a {} and a {}", operation, left.type_name(),
        right.type_name());
}

Value Evaluator::evaluate_slice(const Expression& expression) {
  const Value value = evaluate(*expression.parts[0]);
  refuse_undefined(value);
  const auto bound = [&](std::size_t part, std::int64_t& out) {
    if (!expression.parts[part]) return false;
    const Value given = evaluate(*expression.parts[part]);
    if (given.is_none()) return false;
    if (!given.integer(out)) raise(ErrorCode::invalid, "a {} bounds a slice", given.type_name());
    return true;
  };
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
  const bool has_start = bound(1, start);
  const bool has_stop = bound(2, stop);
  bound(3, step);
  if (step == 0) raise(ErrorCode::invalid, "a slice has the step zero");
  const auto* whole = value.string();
  const auto* items = value.list();
  if (whole == nullptr && items == nullptr) raise(ErrorCode::invalid, "a {} is sliced", value.type_name());
  work(value.weight() + (whole != nullptr ? whole->size() / 8 : 0));
  const auto characters = whole != nullptr ? text_characters(*whole) : std::vector<std::string_view>();
  const auto size = static_cast<std::int64_t>(whole != nullptr ? characters.size() : items->items.size());
  const auto clamp = [&](std::int64_t place) {
    if (place < 0) place = std::max(place, std::numeric_limits<std::int64_t>::min() / 2) + size;
    return std::clamp<std::int64_t>(place, step < 0 ? -1 : 0, step < 0 ? size - 1 : size);
  };
  start = has_start ? clamp(start) : (step < 0 ? size - 1 : 0);
  stop = has_stop ? clamp(stop) : (step < 0 ? -1 : size);
  step = std::clamp<std::int64_t>(step, -size - 1, size + 1);  // as good as any larger one
  std::string out;
  std::vector<Value> chosen;
  for (std::int64_t i = start; step < 0 ? i > stop : i < stop; i += step) {
    if (whole != nullptr) {
      out += characters[static_cast<std::size_t>(i)];
    } else {
      chosen.push_back(items->items[static_cast<std::size_t>(i)]);
    }
  }
  return whole != nullptr ? text(std::move(out)) : list(std::move(chosen), items->tuple);
}

std::vector<Value> Evaluator::items_of(const Value& value) {
  if (value.is_undefined()) return {};
  std::vector<Value> out;
  if (const auto* list = value.list()) {
    work(list->items.size());
    out = list->items;
  } else if (const auto* dict = value.dict()) {
    work(dict->items.size());
    for (const auto& item : dict->items) out.push_back(item.first);
  } else if (const auto* string = value.string()) {
    work(string->size());
    for (const auto character : text_characters(*string)) out.push_back(text(std::string(character)));
  } else {
    raise(ErrorCode::invalid, "a {} has no items to go through", value.type_name());
  }
  bytes_ += out.size() * sizeof(Value);
  return out;
}

Value Evaluator::loop_attribute(const Loop& loop, std::string_view name) {
  const auto size = static_cast<std::int64_t>(loop.items.size());
  const auto index = static_cast<std::int64_t>(loop.index);
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return size - index;
  if (name == "revindex0") return size - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 >= size;
  if (name == "length") return size;
  // Only recursive loops, which there are not, go deeper.
  if (name == "depth") return std::int64_t{1};
  if (name == "depth0") return std::int64_t{0};
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return loop.items[loop.index + 1];
  return Value::undefined(fmt::format("the loop has no '{}'", name));
}

Value Evaluator::attribute(const Value& value, std::string_view name) {
  refuse_undefined(value);
  if (const auto* space = value.get<Namespace*>()) {
    const auto found = (*space)->values.find(std::string(name));
    if (found != (*space)->values.end()) return found->second;
  } else if (has_method(value, name)) {
    return std::make_shared<const Method>(Method{value, std::string(name)});
  } else if (const auto* loop = value.get<std::shared_ptr<Loop>>()) {
    return loop_attribute(**loop, name);
  } else if (const auto* dict = value.dict()) {
    if (const Value* found = dict->member(name)) return *found;
  } else if (const auto* macro = value.get<const Macro*>(); macro != nullptr && name == "name") {
    return text((*macro)->statement->text);
  }
  return Value::undefined(fmt::format("the {} has no attribute '{}'", value.type_name(), name));
}

Value Evaluator::item(const Value& value, const Value& key) {
  refuse_undefined(value);
  if (const auto* dict = value.dict()) {
    if (key.list() == nullptr && key.dict() == nullptr && !key.is_undefined()) {
      if (const Value* found = dict->find(key)) return *found;
    }
  }
  std::int64_t index = 0;
  if (key.integer(index)) {
    if (const auto* items = value.list()) {
      const auto size = static_cast<std::int64_t>(items->items.size());
      if (index < 0) index += size;
      if (index >= 0 && index < size) return items->items[static_cast<std::size_t>(index)];
    } else if (const auto* whole = value.string()) {
      work(whole->size() / 8);
      const auto characters = text_characters(*whole);
      const auto size = static_cast<std::int64_t>(characters.size());
      if (index < 0) index += size;
      if (index >= 0 && index < size) return text(std::string(characters[static_cast<std::size_t>(index)]));
    }
  } else if (const auto* name = key.string()) {
    if (value.dict() == nullptr || has_method(value, *name)) return attribute(value, *name);
  }
  return Value::undefined(
      fmt::format("the {} has no item {}", value.type_name(), to_repr(key).substr(0, 80)));
}

}  // namespace switchyard::model::jinja
