// Runs a parsed template on a context, within limits. One evaluator renders once, on one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/jinja_syntax.h"
#include "model/jinja_value.h"

namespace switchyard::model::jinja {

struct Limits {
  std::uint64_t steps = 10'000'000;
  std::uint64_t bytes = 256 << 20;      // made in all, by every operation
  std::size_t output_bytes = 16 << 20;  // of the result, and of any one text
  std::size_t depth = 600;              // of expressions, blocks and macros in each other
  std::int64_t range = 100'000;
};

// What is given to a filter, test, method or function.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // By place or by name; nullptr: not given.
  const Value* find(std::size_t place, std::string_view name) const;
  // Throws when there are more, or others, than a function has. `of` names it.
  void check(std::string_view of, std::initializer_list<std::string_view> names) const;
};

struct Scope {
  Scope* parent = nullptr;
  bool captured = false;  // a macro refers to it
  std::unordered_map<std::string, Value> values;
};

struct Macro {
  const Statement* statement;
  Scope* scope;
};

class Evaluator {
 public:
  explicit Evaluator(Value context, Limits limits = {}) : context_(std::move(context)), limits_(limits) {}
  std::string run(const Body& body);

  // For built-in functions. All of them throw Failure.
  struct Deeper;  // jinja_deeper.h
  const Limits& limits() const { return limits_; }
  void work(std::uint64_t steps);
  Value text(std::string text);
  Value list(std::vector<Value> items, bool tuple = false);
  std::vector<Value> items_of(const Value& value);
  Value attribute(const Value& value, std::string_view name);
  Value item(const Value& value, const Value& key);
  Value call(const Value& callee, const Arguments& arguments);
  bool contains(const Value& container, const Value& value);
  bool compare(std::string_view operation, const Value& left, const Value& right);
  // Namespaces live until the evaluator goes.
  Value make_namespace(std::vector<std::pair<std::string, Value>> values);

 private:
  enum class Flow { normal, break_loop, continue_loop };

  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_loop(const Statement& statement);
  std::string captured(const Body& body);
  void put(std::string_view text);
  Value evaluate(const Expression& expression);
  Value evaluate_filter(const Expression& expression, const Value* input);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_binary(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_call(const Expression& expression, const Macro* caller);
  Arguments arguments_of(const Expression& expression);
  void assign(const Expression& target, Value value);
  Value lookup(const std::string& name) const;
  Value call_macro(const Macro& macro, const Arguments& arguments);
  const Macro* make_macro(const Statement& statement);
  Value loop_attribute(const Loop& loop, std::string_view name);

  Scope* enter(Scope* parent);
  void leave(Scope* scope);

  Value context_;
  Limits limits_;
  std::uint64_t steps_ = 0;
  std::uint64_t bytes_ = 0;
  std::size_t depth_ = 0;
  int line_ = 1;
  std::string* out_ = nullptr;
  Scope* scope_ = nullptr;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::deque<Macro> macros_;
  std::deque<Namespace> namespaces_;
};

// jinja_filters.cc, jinja_tests.cc, jinja_methods.cc, jinja_functions.cc
Value apply_filter(Evaluator& evaluator, std::string_view name, const Value& input,
                   const Arguments& arguments);
bool apply_test(Evaluator& evaluator, std::string_view name, const Value& input, const Arguments& arguments);
bool has_method(const Value& value, std::string_view name);
Value call_method(Evaluator& evaluator, const Value& self, std::string_view name, const Arguments& arguments);
bool is_function(std::string_view name);
Value call_function(Evaluator& evaluator, std::string_view name, const Arguments& arguments);

}  // namespace switchyard::model::jinja
