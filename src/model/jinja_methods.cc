// Methods of strings, lists, mappings and loops. What would change a value is refused, as transformers'
// sandbox does.
#include <algorithm>
#include <array>
#include <span>

#include "model/jinja_evaluator.h"
#include "model/jinja_text.h"

namespace switchyard::model::jinja {
namespace {

constexpr auto kStringMethods = std::to_array<std::string_view>(
    {"strip",    "lstrip", "rstrip",       "split",        "rsplit",     "splitlines", "startswith",
     "endswith", "upper",  "lower",        "title",        "capitalize", "replace",    "find",
     "count",    "join",   "removeprefix", "removesuffix", "isdigit",    "isspace",    "zfill"});
constexpr auto kListMethods = std::to_array<std::string_view>(
    {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "index", "count", "copy"});
constexpr auto kDictMethods = std::to_array<std::string_view>(
    {"items", "keys", "values", "get", "update", "pop", "popitem", "setdefault", "clear", "copy"});
constexpr auto kLoopMethods = std::to_array<std::string_view>({"cycle", "changed"});

bool among(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view text_of(const Value* value, std::string_view method) {
  if (value == nullptr || value->string() == nullptr) {
    raise(ErrorCode::invalid, "'{}' is not given the string it needs", method);
  }
  return *value->string();
}

std::int64_t whole_of(const Value* value, std::int64_t fallback, std::string_view method) {
  std::int64_t out = fallback;
  if (value != nullptr && !value->integer(out))
    raise(ErrorCode::invalid, "'{}' is not given the number it needs", method);
  return out;
}

Value texts(Evaluator& evaluator, const std::vector<std::string_view>& parts) {
  std::vector<Value> out;
  out.reserve(parts.size());
  for (const auto part : parts) out.push_back(evaluator.text(std::string(part)));
  return evaluator.list(std::move(out));
}

// A prefix or suffix, or a tuple of them.
bool begins_or_ends(std::string_view self, const Value* with, bool begins, std::string_view method) {
  const auto check = [&](std::string_view part) {
    return begins ? self.starts_with(part) : self.ends_with(part);
  };
  if (with != nullptr && with->list() != nullptr && with->list()->tuple) {
    const auto& items = with->list()->items;
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& item) { return check(text_of(&item, method)); });
  }
  return check(text_of(with, method));
}

Value split(Evaluator& evaluator, std::string_view self, std::string_view method,
            const Arguments& arguments) {
  arguments.check(method, {"sep", "maxsplit"});
  const Value* separator = arguments.find(0, "sep");
  const auto most = whole_of(arguments.find(1, "maxsplit"), -1, method);
  if (separator == nullptr || separator->is_none()) {
    if (method == "rsplit" && most >= 0)
      raise(ErrorCode::unsupported, "'rsplit' at white space with a limit is not known");
    return texts(evaluator, text_split(self, std::nullopt, most));
  }
  const auto at = text_of(separator, method);
  if (at.empty()) raise(ErrorCode::invalid, "'{}' is given an empty separator", method);
  return texts(evaluator, method == "split" ? text_split(self, at, most) : text_split_right(self, at, most));
}

Value join(Evaluator& evaluator, std::string_view self, const Arguments& arguments) {
  arguments.check("join", {"iterable"});
  const Value* given = arguments.find(0, "iterable");
  std::string out;
  bool first = true;
  for (const Value& item : evaluator.items_of(given != nullptr ? *given : Value())) {
    if (!std::exchange(first, false)) out += self;
    out += text_of(&item, "join");
    if (out.size() > evaluator.limits().output_bytes) break;  // text() says so
  }
  return evaluator.text(std::move(out));
}

Value call_string(Evaluator& evaluator, std::string_view self, std::string_view name,
                  const Arguments& arguments) {
  const Value* first = arguments.find(0, "");
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    arguments.check(name, {"chars"});
    std::optional<std::string_view> characters;
    if (first != nullptr && !first->is_none()) characters = text_of(first, name);
    return evaluator.text(std::string(text_strip(self, characters, name != "rstrip", name != "lstrip")));
  }
  if (name == "split" || name == "rsplit") return split(evaluator, self, name, arguments);
  if (name == "join") return join(evaluator, self, arguments);
  if (name == "splitlines") {
    arguments.check(name, {"keepends"});
    const Value* keep = arguments.find(0, "keepends");
    return texts(evaluator, text_lines(self, keep != nullptr && keep->truthy()));
  }
  if (name == "startswith") return begins_or_ends(self, first, true, name);
  if (name == "endswith") return begins_or_ends(self, first, false, name);
  if (name == "replace") {
    arguments.check(name, {"old", "new", "count"});
    const auto most = whole_of(arguments.find(2, "count"), -1, name);
    return evaluator.text(text_replace(self, text_of(first, name), text_of(arguments.find(1, "new"), name),
                                       most, evaluator.limits().output_bytes));
  }
  if (name == "find") return text_find(self, text_of(first, name));
  if (name == "count") return text_count(self, text_of(first, name));
  if (name == "removeprefix" || name == "removesuffix") {
    const auto part = text_of(first, name);
    if (name == "removeprefix" && self.starts_with(part)) self.remove_prefix(part.size());
    if (name == "removesuffix" && self.ends_with(part)) self.remove_suffix(part.size());
    return evaluator.text(std::string(self));
  }
  if (name == "zfill") {
    const auto width = whole_of(first, 0, name);
    const auto missing =
        std::clamp<std::int64_t>(width - static_cast<std::int64_t>(text_length(self)), 0, 4096);
    const std::size_t sign = self.starts_with('-') || self.starts_with('+') ? 1 : 0;
    return evaluator.text(std::string(self.substr(0, sign)) +
                          std::string(static_cast<std::size_t>(missing), '0') +
                          std::string(self.substr(sign)));
  }
  arguments.check(name, {});
  if (name == "upper") return evaluator.text(text_upper(self));
  if (name == "lower") return evaluator.text(text_lower(self));
  if (name == "title") return evaluator.text(text_title(self));
  if (name == "capitalize") return evaluator.text(text_capitalize(self));
  if (name == "isspace") return !self.empty() && text_strip(self, std::nullopt, true, false).empty();
  // isdigit
  return !self.empty() && std::all_of(self.begin(), self.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Value call_list(Evaluator& evaluator, const List& self, std::string_view name, const Arguments& arguments) {
  if (name == "copy") return evaluator.list(self.items);
  if (name != "index" && name != "count") {
    raise(ErrorCode::invalid, "'{}' would change a list, which templates may not", name);
  }
  arguments.check(name, {"value"});
  if (arguments.positional.empty()) raise(ErrorCode::invalid, "'{}' is not given a value", name);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < self.items.size(); ++i) {
    if (!equal(self.items[i], arguments.positional[0])) continue;
    if (name == "index") return static_cast<std::int64_t>(i);
    ++count;
  }
  if (name == "index") raise(ErrorCode::invalid, "'index' does not find its value in the list");
  return count;
}

Value call_dict(Evaluator& evaluator, const Value& value, std::string_view name, const Arguments& arguments) {
  const Dict& self = *value.dict();
  if (name == "get") {
    arguments.check(name, {"key", "default"});
    if (arguments.positional.empty()) raise(ErrorCode::invalid, "'get' is not given a key");
    if (const Value* found = self.find(arguments.positional[0])) return *found;
    const Value* fallback = arguments.find(1, "default");
    return fallback != nullptr ? *fallback : Value(None{});
  }
  if (name == "copy") return value;
  std::vector<Value> out;
  for (const auto& [key, item] : self.items) {
    if (name == "items") {
      out.push_back(evaluator.list({key, item}, true));
    } else if (name == "keys") {
      out.push_back(key);
    } else if (name == "values") {
      out.push_back(item);
    } else {
      break;
    }
  }
  if (name != "items" && name != "keys" && name != "values") {
    raise(ErrorCode::invalid, "'{}' would change a mapping, which templates may not", name);
  }
  arguments.check(name, {});
  return evaluator.list(std::move(out));
}

Value call_loop(Loop& self, std::string_view name, const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) raise(ErrorCode::invalid, "'cycle' is given nothing");
    return arguments.positional[self.index % arguments.positional.size()];
  }
  std::string given;
  for (const Value& value : arguments.positional) given += to_repr(value) + ',';
  const bool same = self.changed_before && self.last_changed == given;
  self.changed_before = true;
  self.last_changed = std::move(given);
  return !same;
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  if (value.string()) return among(kStringMethods, name);
  if (value.list()) return among(kListMethods, name);
  if (value.dict()) return among(kDictMethods, name);
  return value.get<std::shared_ptr<Loop>>() != nullptr && among(kLoopMethods, name);
}

Value call_method(Evaluator& evaluator, const Value& self, std::string_view name,
                  const Arguments& arguments) {
  if (const auto* text = self.string()) return call_string(evaluator, *text, name, arguments);
  if (const auto* list = self.list()) return call_list(evaluator, *list, name, arguments);
  if (self.dict()) return call_dict(evaluator, self, name, arguments);
  return call_loop(**self.get<std::shared_ptr<Loop>>(), name, arguments);
}

}  // namespace switchyard::model::jinja
