// Values as text: Python's str() and repr(), and json.dumps().
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "model/jinja_value.h"
#include "model/unicode.h"

namespace switchyard::model::jinja {
namespace {

constexpr std::size_t kMaxBytes = 16 << 20;

void check(const std::string& out) {
  if (out.size() > kMaxBytes) raise(ErrorCode::exhausted, "a text grows beyond {} bytes", kMaxBytes);
}

void append_string_repr(std::string& out, std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = single ? '"' : '\'';
  out += quote;
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    const char32_t c = step.code;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += text.substr(position, step.length);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<std::uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<std::uint32_t>(c));
    }
    position += step.length;
  }
  out += quote;
}

void append_repr(std::string& out, const Value& value, int depth) {
  check(out);
  if (depth > kMaxNesting) {
    out += "...";
  } else if (const auto* text = value.string()) {
    append_string_repr(out, *text);
  } else if (const auto* list = value.list()) {
    out += list->tuple ? '(' : '[';
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, list->items[i], depth + 1);
    }
    if (list->tuple && list->items.size() == 1) out += ',';
    out += list->tuple ? ')' : ']';
  } else if (const auto* dict = value.dict()) {
    out += '{';
    for (std::size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, dict->items[i].first, depth + 1);
      out += ": ";
      append_repr(out, dict->items[i].second, depth + 1);
    }
    out += '}';
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (const auto* truth = value.get<bool>()) {
    out += *truth ? "True" : "False";
  } else if (const auto* whole = value.get<std::int64_t>()) {
    out += std::to_string(*whole);
  } else if (const auto* real = value.get<double>()) {
    out += float_repr(*real);
  } else {
    out += '<';
    out += value.type_name();
    out += '>';
  }
}

void append_json_string(std::string& out, std::string_view text, bool ascii) {
  out += '"';
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    const auto c = static_cast<std::uint32_t>(step.code);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (c < 0x20 || (ascii && c >= 0x7f && c < 0x10000)) {
          out += c == 0x7f ? std::string("\x7f") : fmt::format("\\u{:04x}", c);
        } else if (ascii && c >= 0x10000) {
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((c - 0x10000) >> 10),
                             0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
          out += text.substr(position, step.length);
        }
    }
    position += step.length;
  }
  out += '"';
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, int depth) {
    check(out);
    if (const auto* text = value.string()) {
      append_json_string(out, *text, style_.ascii);
    } else if (const auto* list = value.list()) {
      between('[', ']', list->items.size(), depth, [&](std::size_t i) { write(list->items[i], depth + 1); });
    } else if (const auto* dict = value.dict()) {
      std::vector<std::size_t> order(dict->items.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      if (style_.sort_keys) {
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
          return less(dict->items[a].first, dict->items[b].first);
        });
      }
      between('{', '}', order.size(), depth, [&](std::size_t i) {
        const auto& [key, item] = dict->items[order[i]];
        write_key(key);
        out += style_.key_separator;
        write(item, depth + 1);
      });
    } else if (value.is_none()) {
      out += "null";
    } else if (const auto* truth = value.get<bool>()) {
      out += *truth ? "true" : "false";
    } else if (const auto* whole = value.get<std::int64_t>()) {
      out += std::to_string(*whole);
    } else if (const auto* real = value.get<double>()) {
      out += std::isnan(*real)   ? "NaN"
             : std::isinf(*real) ? (*real > 0 ? "Infinity" : "-Infinity")
                                 : float_repr(*real);
    } else {
      raise(ErrorCode::invalid, "JSON has no form for a {}", value.type_name());
    }
  }

  std::string out;

 private:
  template <class Write>
  void between(char open, char close, std::size_t count, int depth, Write write_item) {
    out += open;
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out += style_.item_separator;
      line(depth + 1);
      write_item(i);
    }
    if (count > 0) line(depth);
    out += close;
  }

  void line(int depth) {
    if (style_.indent < 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(style_.indent) * static_cast<std::size_t>(depth), ' ');
    check(out);
  }

  void write_key(const Value& key) {
    if (const auto* text = key.string()) {
      append_json_string(out, *text, style_.ascii);
    } else {
      out += '"';
      write(key, 0);
      out += '"';
    }
  }

  const JsonStyle& style_;
};

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer;
  // The shortest digits that read back as the same number, laid out as Python does: an exponent below 1e-4
  // and from 1e16 on.
  const double size = std::abs(value);
  const bool exponent = value != 0 && (size < 1e-4 || size >= 1e16);
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string out(buffer.data(), error == std::errc() ? end : buffer.data());
  if (!exponent && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string to_repr(const Value& value) {
  std::string out;
  append_repr(out, value, 0);
  return out;
}

std::string to_text(const Value& value) {
  if (const auto* text = value.string()) return *text;
  if (value.is_undefined()) return "";
  return to_repr(value);
}

std::string to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace switchyard::model::jinja
