#include "model/jinja_value.h"

#include <algorithm>
#include <cmath>

namespace switchyard::model::jinja {
namespace {

// One text for every key that Python takes for the same: 1, 1.0 and True are.
std::string key_text(const Value& key) {
  if (const auto* text = key.string()) return "s" + *text;
  std::int64_t whole = 0;
  if (key.integer(whole)) return "n" + std::to_string(whole);
  if (const auto* real = key.get<double>()) {
    if (std::abs(*real) < 1e15 && *real == std::floor(*real))
      return "n" + std::to_string(static_cast<std::int64_t>(*real));
    return "f" + float_repr(*real);
  }
  if (key.is_none()) return "0";
  raise(ErrorCode::invalid, "a {} cannot be a key", key.type_name());
}

template <class Made>
void count_in(Made& made, const Value& item) {
  made.nesting = std::max(made.nesting, 1 + item.nesting());
  made.weight += item.weight();
  if (made.nesting > kMaxNesting)
    raise(ErrorCode::exhausted, "values are nested more than {} deep", kMaxNesting);
  if (made.weight > kMaxWeight) raise(ErrorCode::exhausted, "a value has more than {} parts", kMaxWeight);
}

}  // namespace

Value Value::list(std::vector<Value> items, bool tuple) {
  auto made = std::make_shared<List>();
  for (const auto& item : items) count_in(*made, item);
  made->items = std::move(items);
  made->tuple = tuple;
  Value value;
  value.store_ = ListPointer(std::move(made));
  return value;
}

Value Value::dict(std::vector<std::pair<Value, Value>> items) {
  auto made = std::make_shared<Dict>();
  made->index.reserve(items.size());
  for (auto& item : items) {
    count_in(*made, item.first);
    count_in(*made, item.second);
    const auto [place, fresh] = made->index.try_emplace(key_text(item.first), made->items.size());
    if (fresh) {
      made->items.push_back(std::move(item));
    } else {
      made->items[place->second].second = std::move(item.second);
    }
  }
  Value value;
  value.store_ = DictPointer(std::move(made));
  return value;
}

Value Value::undefined(std::string what) {
  return Undefined{std::make_shared<const std::string>(std::move(what))};
}

const std::string* Value::string() const {
  const auto* pointer = get<StringPointer>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

const List* Value::list() const {
  const auto* pointer = get<ListPointer>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

const Dict* Value::dict() const {
  const auto* pointer = get<DictPointer>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

bool Value::integer(std::int64_t& out) const {
  if (const auto* whole = get<std::int64_t>()) {
    out = *whole;
    return true;
  }
  if (const auto* truth = get<bool>()) {
    out = *truth ? 1 : 0;
    return true;
  }
  return false;
}

double Value::number() const {
  std::int64_t whole = 0;
  if (integer(whole)) return static_cast<double>(whole);
  const auto* real = get<double>();
  return real != nullptr ? *real : 0;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const auto* text = string()) return !text->empty();
  if (const auto* items = list()) return !items->items.empty();
  if (const auto* items = dict()) return !items->items.empty();
  return true;
}

int Value::nesting() const {
  if (const auto* items = list()) return items->nesting;
  if (const auto* items = dict()) return items->nesting;
  if (const auto* method = get<std::shared_ptr<const Method>>()) return 1 + (*method)->self.nesting();
  return 0;
}

std::uint64_t Value::weight() const {
  if (const auto* items = list()) return items->weight;
  if (const auto* items = dict()) return items->weight;
  if (const auto* text = string()) return 1 + text->size() / 64;
  if (const auto* method = get<std::shared_ptr<const Method>>()) return 1 + (*method)->self.weight();
  return 1;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined value";
  if (is_none()) return "None";
  if (get<bool>()) return "boolean";
  if (get<std::int64_t>()) return "integer";
  if (get<double>()) return "float";
  if (string()) return "string";
  if (list()) return list()->tuple ? "tuple" : "list";
  if (dict()) return "mapping";
  if (get<Namespace*>()) return "namespace";
  if (get<std::shared_ptr<Loop>>()) return "loop";
  return "function";
}

const Value* Dict::find(const Value& key) const {
  const auto place = index.find(key_text(key));
  return place == index.end() ? nullptr : &items[place->second].second;
}

const Value* Dict::member(std::string_view key) const {
  const auto place = index.find("s" + std::string(key));
  return place == index.end() ? nullptr : &items[place->second].second;
}

bool equal(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    std::int64_t a = 0;
    std::int64_t b = 0;
    if (left.integer(a) && right.integer(b)) return a == b;
    return left.number() == right.number();
  }
  if (left.string() && right.string()) return *left.string() == *right.string();
  if (left.list() && right.list()) {
    const auto& a = *left.list();
    const auto& b = *right.list();
    return a.tuple == b.tuple &&
           std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), equal);
  }
  if (left.dict() && right.dict()) {
    const auto& a = *left.dict();
    const auto& b = *right.dict();
    if (a.items.size() != b.items.size()) return false;
    return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
      const Value* other = b.find(item.first);
      return other != nullptr && equal(item.second, *other);
    });
  }
  if (left.is_none() || right.is_none()) return left.is_none() && right.is_none();
  if (left.is_undefined() || right.is_undefined()) return left.is_undefined() && right.is_undefined();
  if (const auto* a = left.get<Namespace*>()) {
    const auto* b = right.get<Namespace*>();
    return b != nullptr && *a == *b;
  }
  return false;
}

bool less(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    std::int64_t a = 0;
    std::int64_t b = 0;
    if (left.integer(a) && right.integer(b)) return a < b;
    return left.number() < right.number();
  }
  if (left.string() && right.string()) return *left.string() < *right.string();
  if (left.list() && right.list()) {
    const auto& a = left.list()->items;
    const auto& b = right.list()->items;
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (!equal(a[i], b[i])) return less(a[i], b[i]);
    }
    return a.size() < b.size();
  }
  raise(ErrorCode::invalid, "a {} and a {} have no order", left.type_name(), right.type_name());
}

}  // namespace switchyard::model::jinja
