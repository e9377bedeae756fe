// Filters: value|name(arguments).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "model/jinja_deeper.h"
#include "model/jinja_text.h"

namespace switchyard::model::jinja {
namespace {

using Filter = Value (*)(Evaluator&, const Value&, const Arguments&);

std::int64_t whole_of(const Value* value, std::int64_t fallback, std::string_view filter) {
  std::int64_t out = fallback;
  if (value != nullptr && !value->is_none() && !value->integer(out)) {
    raise(ErrorCode::invalid, "'{}' is given a {} for a whole number", filter, value->type_name());
  }
  return out;
}

bool truth_of(const Value* value, bool fallback) { return value != nullptr ? value->truthy() : fallback; }

std::string text_of(const Value* value, std::string fallback) {
  return value != nullptr && !value->is_none() ? to_text(*value) : std::move(fallback);
}

void refuse_undefined(const Value& value) {
  if (const auto* undefined = value.get<Undefined>()) {
    raise(ErrorCode::invalid, "{}", undefined->what ? *undefined->what : "an undefined value is used");
  }
}

// "a.b.0" of a value, each part as an attribute or item.
Value path(Evaluator& evaluator, Value value, const Value& attribute) {
  if (!attribute.string()) return evaluator.item(value, attribute);
  for (const auto part : text_split(*attribute.string(), ".", -1)) {
    const bool digits = !part.empty() && part.size() < 10 &&
                        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (digits) {
      std::int64_t index = 0;
      std::from_chars(part.data(), part.data() + part.size(), index);
      value = evaluator.item(value, Value(index));
    } else {
      value = evaluator.item(value, Value(part));
    }
  }
  return value;
}

// What values are ordered by: an attribute if one is asked for, without regard to case unless that is.
Value key_of(Evaluator& evaluator, const Value& value, const Value* attribute, bool case_sensitive) {
  Value key = attribute != nullptr && !attribute->is_none() ? path(evaluator, value, *attribute) : value;
  if (!case_sensitive && key.string()) return evaluator.text(text_lower(*key.string()));
  return key;
}

std::vector<Value> sorted(Evaluator& evaluator, std::vector<Value> items, const Value* attribute,
                          bool case_sensitive, bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  keyed.reserve(items.size());
  std::uint64_t weight = 1;
  for (auto& item : items) {
    Value key = key_of(evaluator, item, attribute, case_sensitive);
    weight = std::max(weight, key.weight());
    keyed.emplace_back(std::move(key), std::move(item));
  }
  evaluator.work(keyed.size() * (1 + static_cast<std::uint64_t>(std::log2(keyed.size() + 1))) * weight);
  // Reversed, equal ones still keep their order.
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  });
  for (std::size_t i = 0; i < keyed.size(); ++i) items[i] = std::move(keyed[i].second);
  return items;
}

Value filter_trim(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("trim", {"chars"});
  const Value* given = a.find(0, "chars");
  std::optional<std::string_view> characters;
  if (given != nullptr && given->string()) characters = *given->string();
  return e.text(std::string(text_strip(to_text(v), characters, true, true)));
}

Value filter_tojson(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = truth_of(a.find(0, "ensure_ascii"), false);
  const auto indent = whole_of(a.find(1, "indent"), -1, "tojson");
  if (indent > 64) raise(ErrorCode::invalid, "'tojson' is told to indent by {}", indent);
  style.indent = static_cast<int>(std::max<std::int64_t>(indent, -1));
  if (style.indent >= 0) style.item_separator.assign(1, ',');
  if (const Value* separators = a.find(2, "separators");
      separators != nullptr && separators->list() && separators->list()->items.size() == 2) {
    style.item_separator = to_text(separators->list()->items[0]);
    style.key_separator = to_text(separators->list()->items[1]);
  }
  style.sort_keys = truth_of(a.find(3, "sort_keys"), false);
  return e.text(to_json(v, style));
}

Value filter_length(Evaluator&, const Value& v, const Arguments&) {
  if (v.is_undefined()) return std::int64_t{0};
  if (v.string()) return static_cast<std::int64_t>(text_length(*v.string()));
  if (v.list()) return static_cast<std::int64_t>(v.list()->items.size());
  if (v.dict()) return static_cast<std::int64_t>(v.dict()->items.size());
  raise(ErrorCode::invalid, "a {} has no length", v.type_name());
}

template <std::string (*Map)(std::string_view)>
Value mapped(Evaluator& e, const Value& v, const Arguments&) {
  return e.text(Map(to_text(v)));
}

Value filter_string(Evaluator& e, const Value& v, const Arguments&) {
  return v.string() ? v : e.text(to_text(v));
}

Value filter_join(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("join", {"d", "attribute"});
  const std::string between = text_of(a.find(0, "d"), "");
  const Value* attribute = a.find(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : e.items_of(v)) {
    if (!std::exchange(first, false)) out += between;
    out += to_text(attribute != nullptr && !attribute->is_none() ? path(e, item, *attribute) : item);
    if (out.size() > e.limits().output_bytes) break;  // text() says so
  }
  return e.text(std::move(out));
}

Value filter_first(Evaluator& e, const Value& v, const Arguments&) {
  if (v.list() && !v.list()->items.empty()) return v.list()->items.front();
  const auto items = e.items_of(v);
  return items.empty() ? Value::undefined("there is no first item") : items.front();
}

Value filter_last(Evaluator& e, const Value& v, const Arguments&) {
  if (v.list() && !v.list()->items.empty()) return v.list()->items.back();
  const auto items = e.items_of(v);
  return items.empty() ? Value::undefined("there is no last item") : items.back();
}

Value filter_list(Evaluator& e, const Value& v, const Arguments&) { return e.list(e.items_of(v)); }

Value filter_default(Evaluator&, const Value& v, const Arguments& a) {
  a.check("default", {"default_value", "boolean"});
  const bool missing = v.is_undefined() || (truth_of(a.find(1, "boolean"), false) && !v.truthy());
  if (!missing) return v;
  const Value* fallback = a.find(0, "default_value");
  return fallback != nullptr ? *fallback : Value("");
}

Value filter_replace(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("replace", {"old", "new", "count"});
  return e.text(text_replace(to_text(v), text_of(a.find(0, "old"), ""), text_of(a.find(1, "new"), ""),
                             whole_of(a.find(2, "count"), -1, "replace"), e.limits().output_bytes));
}

// What Python's float() reads, or false.
bool read_real(std::string_view text, double& out) {
  text = text_strip(text, std::nullopt, true, true);
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

bool real_to_whole(double real, std::int64_t& out) {
  if (!(std::abs(real) < 9.2e18)) return false;
  out = static_cast<std::int64_t>(real);
  return true;
}

Value filter_int(Evaluator&, const Value& v, const Arguments& a) {
  a.check("int", {"default", "base"});
  const Value* fallback = a.find(0, "default");
  const auto base = whole_of(a.find(1, "base"), 10, "int");
  std::int64_t out = 0;
  if (v.integer(out)) return out;
  double real = 0;
  if (const auto* text = v.string()) {
    auto digits = text_strip(*text, std::nullopt, true, true);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    if (base == 16 && (digits.starts_with("0x") || digits.starts_with("0X"))) digits.remove_prefix(2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out,
                                              static_cast<int>(std::clamp<std::int64_t>(base, 2, 36)));
    if (error == std::errc() && end == digits.data() + digits.size()) return out;
    if (read_real(*text, real) && real_to_whole(real, out)) return out;
  } else if (v.get<double>() && real_to_whole(*v.get<double>(), out)) {
    return out;
  }
  return fallback != nullptr ? *fallback : Value(std::int64_t{0});
}

Value filter_float(Evaluator&, const Value& v, const Arguments& a) {
  a.check("float", {"default"});
  double real = 0;
  if (v.is_number()) return v.number();
  if (v.string() && read_real(*v.string(), real)) return real;
  const Value* fallback = a.find(0, "default");
  return fallback != nullptr ? *fallback : Value(0.0);
}

Value filter_map(Evaluator& e, const Value& v, const Arguments& a) {
  std::vector<Value> out;
  const Value* attribute = nullptr;
  const Value* fallback = nullptr;
  for (const auto& [name, value] : a.named) {
    if (name == "attribute") attribute = &value;
    if (name == "default") fallback = &value;
  }
  Arguments inner;
  std::string filter;
  if (attribute == nullptr) {
    if (a.positional.empty() || !a.positional[0].string())
      raise(ErrorCode::invalid, "'map' is not told what to do");
    filter = *a.positional[0].string();
    if (!is_filter(filter)) raise(ErrorCode::unsupported, "the filter '{}' is not known", filter);
    inner.positional.assign(a.positional.begin() + 1, a.positional.end());
    inner.named = a.named;
  }
  for (const Value& item : e.items_of(v)) {
    e.work(1 + item.weight());
    if (attribute == nullptr) {
      out.push_back(apply_filter(e, filter, item, inner));
      continue;
    }
    Value found = path(e, item, *attribute);
    out.push_back(found.is_undefined() && fallback != nullptr ? *fallback : std::move(found));
  }
  return e.list(std::move(out));
}

Value chosen(Evaluator& e, const Value& v, const Arguments& a, bool by_attribute, bool wanted) {
  const std::size_t skipped = by_attribute ? 1 : 0;
  if (a.positional.size() < skipped) raise(ErrorCode::invalid, "'selectattr' is not given an attribute");
  Arguments inner;
  std::string test;
  if (a.positional.size() > skipped) {
    test = to_text(a.positional[skipped]);
    if (!is_test(test)) raise(ErrorCode::unsupported, "the test '{}' is not known", test);
    inner.positional.assign(a.positional.begin() + static_cast<std::ptrdiff_t>(skipped) + 1,
                            a.positional.end());
    inner.named = a.named;
  }
  std::vector<Value> out;
  for (Value& item : e.items_of(v)) {
    e.work(1);
    const Value subject = by_attribute ? path(e, item, a.positional[0]) : item;
    if ((test.empty() ? subject.truthy() : apply_test(e, test, subject, inner)) == wanted)
      out.push_back(std::move(item));
  }
  return e.list(std::move(out));
}

Value filter_select(Evaluator& e, const Value& v, const Arguments& a) { return chosen(e, v, a, false, true); }
Value filter_reject(Evaluator& e, const Value& v, const Arguments& a) {
  return chosen(e, v, a, false, false);
}
Value filter_selectattr(Evaluator& e, const Value& v, const Arguments& a) {
  return chosen(e, v, a, true, true);
}
Value filter_rejectattr(Evaluator& e, const Value& v, const Arguments& a) {
  return chosen(e, v, a, true, false);
}

Value filter_items(Evaluator& e, const Value& v, const Arguments&) {
  std::vector<Value> out;
  if (v.is_undefined()) return e.list({});
  if (!v.dict()) raise(ErrorCode::invalid, "'items' is given a {} and not a mapping", v.type_name());
  for (const auto& [key, item] : v.dict()->items) out.push_back(e.list({key, item}, true));
  return e.list(std::move(out));
}

Value filter_dictsort(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("dictsort", {"case_sensitive", "by", "reverse"});
  if (!v.dict()) raise(ErrorCode::invalid, "'dictsort' is given a {} and not a mapping", v.type_name());
  const std::string by = text_of(a.find(1, "by"), "key");
  const Value place(std::int64_t{by == "value" ? 1 : 0});
  std::vector<Value> items;
  for (const auto& [key, item] : v.dict()->items) items.push_back(e.list({key, item}, true));
  return e.list(sorted(e, std::move(items), &place, truth_of(a.find(0, "case_sensitive"), false),
                       truth_of(a.find(2, "reverse"), false)));
}

Value filter_sort(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("sort", {"reverse", "case_sensitive", "attribute"});
  return e.list(sorted(e, e.items_of(v), a.find(2, "attribute"), truth_of(a.find(1, "case_sensitive"), false),
                       truth_of(a.find(0, "reverse"), false)));
}

Value extreme(Evaluator& e, const Value& v, const Arguments& a, bool largest) {
  a.check(largest ? "max" : "min", {"case_sensitive", "attribute"});
  const auto items = e.items_of(v);
  if (items.empty()) return Value::undefined("there is nothing to choose from");
  std::size_t best = 0;
  Value best_key;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Value key = key_of(e, items[i], a.find(1, "attribute"), truth_of(a.find(0, "case_sensitive"), false));
    e.work(1 + key.weight());
    if (i > 0 && !(largest ? less(best_key, key) : less(key, best_key))) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Value filter_min(Evaluator& e, const Value& v, const Arguments& a) { return extreme(e, v, a, false); }
Value filter_max(Evaluator& e, const Value& v, const Arguments& a) { return extreme(e, v, a, true); }

Value filter_sum(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("sum", {"attribute", "start"});
  const Value* attribute = a.find(0, "attribute");
  double real = 0;
  std::int64_t total = whole_of(a.find(1, "start"), 0, "sum");
  bool whole = true;
  for (const Value& item : e.items_of(v)) {
    const Value part = attribute != nullptr && !attribute->is_none() ? path(e, item, *attribute) : item;
    std::int64_t number = 0;
    if (!part.is_number()) raise(ErrorCode::invalid, "'sum' is given a {}", part.type_name());
    if (!part.integer(number)) whole = false;
    real += part.number();
    if (whole && __builtin_add_overflow(total, number, &total))
      raise(ErrorCode::invalid, "a whole number grows beyond 64 bits");
  }
  return whole ? Value(total) : Value(real + static_cast<double>(whole_of(a.find(1, "start"), 0, "sum")));
}

Value filter_reverse(Evaluator& e, const Value& v, const Arguments&) {
  if (v.string()) {
    auto characters = text_characters(*v.string());
    std::string out;
    for (auto it = characters.rbegin(); it != characters.rend(); ++it) out += *it;
    return e.text(std::move(out));
  }
  auto items = e.items_of(v);
  std::reverse(items.begin(), items.end());
  return e.list(std::move(items));
}

Value filter_unique(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("unique", {"case_sensitive", "attribute"});
  std::unordered_set<std::string> seen;
  std::vector<Value> out;
  for (Value& item : e.items_of(v)) {
    const Value key = key_of(e, item, a.find(1, "attribute"), truth_of(a.find(0, "case_sensitive"), false));
    e.work(1 + key.weight());
    if (seen.insert(to_repr(key)).second) out.push_back(std::move(item));
  }
  return e.list(std::move(out));
}

Value filter_indent(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("indent", {"width", "first", "blank"});
  const Value* width = a.find(0, "width");
  std::string with;
  if (width != nullptr && width->string()) {
    with = *width->string();
  } else {
    with = std::string(
        static_cast<std::size_t>(std::clamp<std::int64_t>(whole_of(width, 4, "indent"), 0, 256)), ' ');
  }
  const std::string text = to_text(v);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  if (with.size() >
      (e.limits().output_bytes - std::min(text.size(), e.limits().output_bytes)) / (lines + 1)) {
    raise(ErrorCode::exhausted, "a text grows beyond {} bytes", e.limits().output_bytes);
  }
  return e.text(
      text_indent(text, with, truth_of(a.find(1, "first"), false), truth_of(a.find(2, "blank"), false)));
}

Value filter_abs(Evaluator&, const Value& v, const Arguments&) {
  std::int64_t whole = 0;
  if (v.integer(whole)) {
    if (whole == INT64_MIN) raise(ErrorCode::invalid, "a whole number grows beyond 64 bits");
    return whole < 0 ? -whole : whole;
  }
  if (!v.is_number()) raise(ErrorCode::invalid, "'abs' is given a {}", v.type_name());
  return std::abs(v.number());
}

Value filter_round(Evaluator&, const Value& v, const Arguments& a) {
  a.check("round", {"precision", "method"});
  if (!v.is_number()) raise(ErrorCode::invalid, "'round' is given a {}", v.type_name());
  const auto precision = std::clamp<std::int64_t>(whole_of(a.find(0, "precision"), 0, "round"), -300, 300);
  const std::string method = text_of(a.find(1, "method"), "common");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return std::ceil(v.number() * scale) / scale;
  if (method == "floor") return std::floor(v.number() * scale) / scale;
  if (method != "common") raise(ErrorCode::invalid, "'round' knows no method '{}'", method.substr(0, 80));
  std::int64_t whole = 0;
  if (precision >= 0 && v.integer(whole)) return whole;
  if (precision < 0) return std::nearbyint(v.number() * scale) / scale;
  // Correctly rounded, as Python does: by way of the digits.
  double out = 0;
  const std::string digits = fmt::format("{:.{}f}", v.number(), static_cast<int>(precision));
  std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return std::isfinite(v.number()) ? out : v.number();
}

Value filter_wordcount(Evaluator&, const Value& v, const Arguments&) {
  return static_cast<std::int64_t>(text_split(to_text(v), std::nullopt, -1).size());
}

Value filter_attr(Evaluator& e, const Value& v, const Arguments& a) {
  a.check("attr", {"name"});
  refuse_undefined(v);
  const std::string name = text_of(a.find(0, "name"), "");
  // Attributes alone, not items.
  if (v.dict() && !has_method(v, name))
    return Value::undefined(fmt::format("the mapping has no attribute '{}'", name.substr(0, 80)));
  return e.attribute(v, name);
}

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr auto kFilters = std::to_array<Entry>({
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", mapped<text_capitalize>},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"e", mapped<text_escape_html>},
    {"escape", mapped<text_escape_html>},
    {"first", filter_first},
    {"float", filter_float},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", mapped<text_lower>},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_string},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"sort", filter_sort},
    {"string", filter_string},
    {"sum", filter_sum},
    {"title", mapped<text_title_words>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"unique", filter_unique},
    {"upper", mapped<text_upper>},
    {"wordcount", filter_wordcount},
});

const Entry* find_filter(std::string_view name) {
  const auto found =
      std::lower_bound(kFilters.begin(), kFilters.end(), name,
                       [](const Entry& entry, std::string_view key) { return entry.name < key; });
  return found != kFilters.end() && found->name == name ? &*found : nullptr;
}

}  // namespace

bool is_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Evaluator& evaluator, std::string_view name, const Value& input,
                   const Arguments& arguments) {
  const Entry* entry = find_filter(name);
  if (entry == nullptr) raise(ErrorCode::unsupported, "the filter '{}' is not known", name);
  const Evaluator::Deeper deeper(evaluator);  // map applies filters itself
  return entry->filter(evaluator, input, arguments);
}

}  // namespace switchyard::model::jinja
