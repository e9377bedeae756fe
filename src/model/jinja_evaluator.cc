// Statements, scopes and calls; expressions are in jinja_operations.cc.
#include "model/jinja_evaluator.h"

#include <algorithm>

#include "model/jinja_deeper.h"

namespace switchyard::model::jinja {

const Value* Arguments::find(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view of, std::initializer_list<std::string_view> names) const {
  if (positional.size() > names.size())
    raise(ErrorCode::invalid, "'{}' is given {} arguments too many", of, positional.size() - names.size());
  for (const auto& [key, value] : named) {
    if (std::find(names.begin(), names.end(), key) == names.end()) {
      raise(ErrorCode::invalid, "'{}' has no argument '{}'", of, key);
    }
  }
}

std::string Evaluator::run(const Body& body) {
  std::string out;
  out_ = &out;
  scope_ = enter(nullptr);
  try {
    run_body(body);
  } catch (const Failure& failure) {
    raise(failure.code, "line {}: {}", line_, failure.what());
  }
  return out;
}

void Evaluator::work(std::uint64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps)
    raise(ErrorCode::exhausted, "the template takes more than {} steps", limits_.steps);
}

Value Evaluator::text(std::string text) {
  bytes_ += text.size() + 112;
  if (text.size() > limits_.output_bytes)
    raise(ErrorCode::exhausted, "a text grows beyond {} bytes", limits_.output_bytes);
  if (bytes_ > limits_.bytes)
    raise(ErrorCode::exhausted, "the template makes more than {} bytes of values", limits_.bytes);
  return Value(std::move(text));
}

Value Evaluator::list(std::vector<Value> items, bool tuple) {
  work(items.size() + 1);
  bytes_ += items.size() * sizeof(Value) + 48;
  if (bytes_ > limits_.bytes)
    raise(ErrorCode::exhausted, "the template makes more than {} bytes of values", limits_.bytes);
  return Value::list(std::move(items), tuple);
}

Value Evaluator::make_namespace(std::vector<std::pair<std::string, Value>> values) {
  work(1);
  bytes_ += 128;
  Namespace& made = namespaces_.emplace_back();
  for (auto& [name, value] : values) made.values.insert_or_assign(std::move(name), std::move(value));
  return Value(&made);
}

Scope* Evaluator::enter(Scope* parent) {
  Scope* scope = nullptr;
  if (free_scopes_.empty()) {
    scope = &scopes_.emplace_back();
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scope->parent = parent;
  return scope;
}

// A scope that a macro refers to stays until the end of the rendering.
void Evaluator::leave(Scope* scope) {
  if (scope->captured) return;
  scope->values.clear();
  free_scopes_.push_back(scope);
}

const Macro* Evaluator::make_macro(const Statement& statement) {
  bytes_ += 256;
  if (bytes_ > limits_.bytes)
    raise(ErrorCode::exhausted, "the template makes more than {} bytes of values", limits_.bytes);
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent)
    scope->captured = true;
  return &macros_.emplace_back(Macro{&statement, scope_});
}

void Evaluator::put(std::string_view text) {
  if (text.size() > limits_.output_bytes - std::min(limits_.output_bytes, out_->size())) {
    raise(ErrorCode::exhausted, "the output grows beyond {} bytes", limits_.output_bytes);
  }
  bytes_ += text.size();
  if (bytes_ > limits_.bytes)
    raise(ErrorCode::exhausted, "the template makes more than {} bytes of values", limits_.bytes);
  *out_ += text;
}

std::string Evaluator::captured(const Body& body) {
  std::string inner;
  std::string* outer = std::exchange(out_, &inner);
  try {
    run_body(body);
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return inner;
}

Evaluator::Flow Evaluator::run_body(const Body& body) {
  const Deeper deeper(*this);
  for (const auto& statement : body) {
    work(1);
    line_ = statement.line;
    if (const Flow flow = run_statement(statement); flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Evaluator::Flow Evaluator::run_statement(const Statement& statement) {
  using Kind = Statement::Kind;
  switch (statement.kind) {
    case Kind::text:
      put(statement.text);
      break;
    case Kind::output: {
      const Value value = evaluate(*statement.first);
      if (const auto* text = value.string()) {
        put(*text);
      } else {
        put(to_text(value));
      }
      break;
    }
    case Kind::condition:
      for (const auto& branch : statement.branches) {
        if (!branch.test || evaluate(*branch.test).truthy()) return run_body(branch.body);
      }
      break;
    case Kind::loop:
      return run_loop(statement);
    case Kind::assign:
      assign(*statement.target, evaluate(*statement.first));
      break;
    case Kind::assign_block: {
      Value value = text(captured(statement.body));
      if (statement.first) value = evaluate_filter(*statement.first, &value);
      assign(*statement.target, std::move(value));
      break;
    }
    case Kind::macro:
      scope_->values.insert_or_assign(statement.text, Value(make_macro(statement)));
      break;
    case Kind::call:
      put(to_text(evaluate_call(*statement.first, make_macro(statement))));
      break;
    case Kind::filter: {
      const Value value = text(captured(statement.body));
      put(to_text(evaluate_filter(*statement.first, &value)));
      break;
    }
    case Kind::scope: {
      Scope* outer = scope_;
      Scope* inner = enter(outer);
      std::vector<Value> values;
      for (const auto& [target, value] : statement.bindings) values.push_back(evaluate(*value));
      scope_ = inner;
      for (std::size_t i = 0; i < values.size(); ++i) assign(*statement.bindings[i].first, values[i]);
      const Flow flow = run_body(statement.body);
      scope_ = outer;
      leave(inner);
      return flow;
    }
    case Kind::generation:
      return run_body(statement.body);
    case Kind::break_loop:
      return Flow::break_loop;
    case Kind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::normal;
}

Evaluator::Flow Evaluator::run_loop(const Statement& statement) {
  std::vector<Value> items = items_of(evaluate(*statement.first));
  Scope* outer = scope_;
  if (statement.second) {
    std::vector<Value> chosen;
    scope_ = enter(outer);
    for (auto& item : items) {
      assign(*statement.target, item);
      if (evaluate(*statement.second).truthy()) chosen.push_back(std::move(item));
    }
    leave(scope_);
    scope_ = outer;
    items = std::move(chosen);
  }
  if (items.empty()) {
    Scope* inner = scope_ = enter(outer);
    const Flow flow = run_body(statement.other);
    scope_ = outer;
    leave(inner);
    return flow;
  }
  auto loop = std::make_shared<Loop>();
  loop->items = std::move(items);
  for (; loop->index < loop->items.size(); ++loop->index) {
    work(1);
    Scope* inner = enter(outer);
    scope_ = inner;
    inner->values.insert_or_assign("loop", Value(loop));
    assign(*statement.target, loop->items[loop->index]);
    const Flow flow = run_body(statement.body);
    scope_ = outer;
    leave(inner);
    if (flow == Flow::break_loop) break;
  }
  return Flow::normal;
}

void Evaluator::assign(const Expression& target, Value value) {
  if (target.kind == Expression::Kind::name) {
    scope_->values.insert_or_assign(target.text, std::move(value));
  } else if (target.kind == Expression::Kind::attribute) {
    const Value space = evaluate(*target.parts[0]);
    const auto* pointer = space.get<Namespace*>();
    if (pointer == nullptr)
      raise(ErrorCode::invalid, "an attribute of a {} is set; only a namespace's can be", space.type_name());
    (*pointer)->values.insert_or_assign(target.text, std::move(value));
  } else {
    auto items = items_of(value);
    if (items.size() != target.parts.size()) {
      raise(ErrorCode::invalid, "{} values are given to {} names", items.size(), target.parts.size());
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], std::move(items[i]));
  }
}

Value Evaluator::lookup(const std::string& name) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    if (const auto found = scope->values.find(name); found != scope->values.end()) return found->second;
  }
  if (const auto* dict = context_.dict()) {
    if (const Value* value = dict->member(name)) return *value;
  }
  if (is_function(name)) return Function{name};
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

Value Evaluator::call_macro(const Macro& macro, const Arguments& arguments) {
  const Deeper deeper(*this);
  const auto& parameters = macro.statement->parameters;
  if (arguments.positional.size() > parameters.size()) {
    raise(ErrorCode::invalid, "the macro '{}' takes {} arguments and is given {}", macro.statement->text,
          parameters.size(), arguments.positional.size());
  }
  Scope* outer = scope_;
  Scope* inner = enter(macro.scope);
  scope_ = inner;
  for (const auto& [name, value] : arguments.named) {
    const bool known =
        std::any_of(parameters.begin(), parameters.end(), [&](const auto& p) { return p.name == name; });
    if (!known && name != "caller") {
      raise(ErrorCode::invalid, "the macro '{}' has no argument '{}'", macro.statement->text, name);
    }
    inner->values.insert_or_assign(name, value);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& parameter = parameters[i];
    if (i < arguments.positional.size()) {
      inner->values.insert_or_assign(parameter.name, arguments.positional[i]);
    } else if (!inner->values.contains(parameter.name)) {
      inner->values.insert_or_assign(
          parameter.name, parameter.fallback
                              ? evaluate(*parameter.fallback)
                              : Value::undefined(fmt::format("'{}' is undefined", parameter.name)));
    }
  }
  const int line = line_;
  Value out = text(captured(macro.statement->body));
  line_ = line;
  scope_ = outer;
  leave(inner);
  return out;
}

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  work(1);
  if (const auto* macro = callee.get<const Macro*>()) return call_macro(**macro, arguments);
  if (const auto* function = callee.get<Function>()) return call_function(*this, function->name, arguments);
  if (const auto* method = callee.get<std::shared_ptr<const Method>>()) {
    work((*method)->self.weight());
    return call_method(*this, (*method)->self, (*method)->name, arguments);
  }
  if (const auto* undefined = callee.get<Undefined>()) {
    raise(ErrorCode::invalid, "{}, and is called",
          undefined->what ? *undefined->what : "a value is undefined");
  }
  raise(ErrorCode::invalid, "a {} is called", callee.type_name());
}

}  // namespace switchyard::model::jinja
