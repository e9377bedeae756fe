// Values of the template language: what Python's are to Jinja.
//
// Immutable but for namespaces, which live as long as one rendering; cheap to copy. Lists and mappings know
// how deeply they are nested and how much a walk through them costs, and both have limits: [x, x] of [x, x]
// of ... is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model::jinja {

// Thrown inside of the interpreter alone; chat_template.cc makes an Error of it.
struct Failure : std::runtime_error {
  Failure(ErrorCode why, const std::string& message) : std::runtime_error(message), code(why) {}
  ErrorCode code;
};

template <class... Args>
[[noreturn]] void raise(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(code, fmt::format(format, std::forward<Args>(args)...));
}

inline constexpr int kMaxNesting = 200;
inline constexpr std::uint64_t kMaxWeight = 16 << 20;

class Value;
struct List;
struct Dict;
struct Namespace;
struct Macro;
struct Loop;
struct Method;

struct Undefined {
  std::shared_ptr<const std::string> what;  // for the message when it is used
};
struct None {};
// A function of the language: raise_exception, range, ...
struct Function {
  std::string_view name;
};

using ListPointer = std::shared_ptr<const List>;
using DictPointer = std::shared_ptr<const Dict>;
using StringPointer = std::shared_ptr<const std::string>;

class Value {
 public:
  using Store =
      std::variant<Undefined, None, bool, std::int64_t, double, StringPointer, ListPointer, DictPointer,
                   Namespace*, const Macro*, std::shared_ptr<Loop>, std::shared_ptr<const Method>, Function>;

  Value() = default;
  Value(None) : store_(None{}) {}
  Value(Undefined undefined) : store_(std::move(undefined)) {}
  Value(bool value) : store_(value) {}
  Value(std::int64_t value) : store_(value) {}
  Value(double value) : store_(value) {}
  Value(std::string text) : store_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(Namespace* space) : store_(space) {}
  Value(const Macro* macro) : store_(macro) {}
  Value(std::shared_ptr<Loop> loop) : store_(std::move(loop)) {}
  Value(std::shared_ptr<const Method> method) : store_(std::move(method)) {}
  Value(Function function) : store_(function) {}
  // Throw when nested too deeply.
  static Value list(std::vector<Value> items, bool tuple = false);
  static Value dict(std::vector<std::pair<Value, Value>> items);
  static Value undefined(std::string what);
  template <class Json>
  static Value from_json(const Json& json, int depth = 0);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&store_);
  }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_number() const { return get<bool>() || get<std::int64_t>() || get<double>(); }
  // nullptr: something else.
  const std::string* string() const;
  const List* list() const;
  const Dict* dict() const;
  // Integers and booleans; false: something else.
  bool integer(std::int64_t& out) const;
  double number() const;  // of is_number()

  bool truthy() const;
  int nesting() const;
  // What walking through all of it costs, in values and 64-byte pieces of text.
  std::uint64_t weight() const;
  // As errors name it: "string", "list".
  std::string_view type_name() const;

 private:
  Store store_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int nesting = 1;
  std::uint64_t weight = 1;
};

// In the order of insertion; equal keys are one.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string, std::size_t> index;
  int nesting = 1;
  std::uint64_t weight = 1;
  const Value* find(const Value& key) const;
  const Value* member(std::string_view key) const;
};

struct Namespace {
  std::unordered_map<std::string, Value> values;
};

struct Loop {
  std::vector<Value> items;
  std::size_t index = 0;
  std::string last_changed;  // what loop.changed() was given last, as text: a loop never refers to itself
  bool changed_before = false;
};

struct Method {
  Value self;
  std::string name;
};

// Python's ==; numbers of different types compare by value.
bool equal(const Value& left, const Value& right);
// Python's <. Throws for values without order.
bool less(const Value& left, const Value& right);

// Python's str() and repr().
std::string to_text(const Value& value);
std::string to_repr(const Value& value);
std::string float_repr(double value);

struct JsonStyle {
  int indent = -1;  // negative: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ascii = false;
};
// json.dumps. Throws for what JSON has no form for.
std::string to_json(const Value& value, const JsonStyle& style);

template <class Json>
Value Value::from_json(const Json& json, int depth) {
  if (depth > kMaxNesting)
    raise(ErrorCode::invalid, "what the template is given is nested more than {} deep", kMaxNesting);
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return json.template get<bool>();
    case nlohmann::json::value_t::number_integer:
      return json.template get<std::int64_t>();
    case nlohmann::json::value_t::number_unsigned: {
      const auto value = json.template get<std::uint64_t>();
      if (value > 0x7fffffffffffffff) return static_cast<double>(value);
      return static_cast<std::int64_t>(value);
    }
    case nlohmann::json::value_t::number_float:
      return json.template get<double>();
    case nlohmann::json::value_t::string:
      return json.template get_ref<const std::string&>();
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return list(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      items.reserve(json.size());
      for (const auto& [key, item] : json.items()) items.emplace_back(Value(key), from_json(item, depth + 1));
      return dict(std::move(items));
    }
    default:
      return None{};
  }
}

}  // namespace switchyard::model::jinja
