#include "model/jinja_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "model/jinja_value.h"
#include "model/unicode.h"

namespace switchyard::model::jinja {
namespace {

char32_t upper(char32_t code) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)));
}
char32_t lower(char32_t code) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}
char32_t title(char32_t code) {
  return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code)));
}

bool is_cased(char32_t code) {
  const auto kind = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT;
}

// Calls map(code) for every character and joins what it returns.
template <class Map>
std::string mapped(std::string_view text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    if (step.state == Utf8State::valid) {
      utf8_append(out, map(step.code));
    } else {
      out += text.substr(position, step.length);
    }
    position += step.length;
  }
  return out;
}

std::size_t character_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

}  // namespace

bool is_space(char32_t code) { return is_white_space(code) || (code >= 0x1C && code <= 0x1F); }

std::size_t text_length(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string_view> text_characters(std::string_view text) {
  std::vector<std::string_view> out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t length = utf8_step(text, position).length;
    out.push_back(text.substr(position, length));
    position += length;
  }
  return out;
}

std::string_view text_strip(std::string_view text, std::optional<std::string_view> characters, bool left,
                            bool right) {
  const auto goes = [&](std::string_view character) {
    if (characters) return characters->find(character) != std::string_view::npos;
    return is_space(utf8_step(character, 0).code);
  };
  while (left && !text.empty()) {
    const std::size_t length = utf8_step(text, 0).length;
    if (!goes(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    const std::size_t begin = character_before(text, text.size());
    if (!goes(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::vector<std::string_view> text_split(std::string_view text, std::optional<std::string_view> separator,
                                         std::int64_t most) {
  std::vector<std::string_view> out;
  if (separator) {
    while (most < 0 || static_cast<std::int64_t>(out.size()) < most) {
      const auto found = text.find(*separator);
      if (found == std::string_view::npos) break;
      out.push_back(text.substr(0, found));
      text.remove_prefix(found + separator->size());
    }
    out.push_back(text);
    return out;
  }
  for (text = text_strip(text, std::nullopt, true, false); !text.empty();
       text = text_strip(text, std::nullopt, true, false)) {
    if (most >= 0 && static_cast<std::int64_t>(out.size()) >= most) {
      out.push_back(text_strip(text, std::nullopt, false, true));
      break;
    }
    std::size_t end = 0;
    while (end < text.size()) {
      const Utf8Step step = utf8_step(text, end);
      if (is_space(step.code)) break;
      end += step.length;
    }
    out.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return out;
}

std::vector<std::string_view> text_split_right(std::string_view text, std::string_view separator,
                                               std::int64_t most) {
  std::vector<std::string_view> out;
  while (most < 0 || static_cast<std::int64_t>(out.size()) < most) {
    const auto found = text.rfind(separator);
    if (found == std::string_view::npos) break;
    out.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  out.push_back(text);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> text_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  std::size_t begin = 0;
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    std::size_t next = position + step.length;
    const char32_t c = step.code;
    const bool ends =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (ends) {
      if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
      out.push_back(text.substr(begin, (keep_ends ? next : position) - begin));
      begin = next;
    }
    position = next;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::string text_replace(std::string_view text, std::string_view from, std::string_view to, std::int64_t most,
                         std::size_t max_bytes) {
  std::string out;
  const auto put = [&](std::string_view part) {
    if (part.size() > max_bytes - std::min(max_bytes, out.size())) {
      raise(ErrorCode::exhausted, "a text grows beyond {} bytes", max_bytes);
    }
    out += part;
  };
  if (from.empty()) {
    // Between all characters, at both ends too.
    std::int64_t done = 0;
    for (const auto character : text_characters(text)) {
      if (most < 0 || done++ < most) put(to);
      put(character);
    }
    if (most < 0 || done < most) put(to);
    return out;
  }
  for (std::int64_t done = 0;; ++done) {
    const auto found = most >= 0 && done >= most ? std::string_view::npos : text.find(from);
    put(text.substr(0, found));
    if (found == std::string_view::npos) return out;
    put(to);
    text.remove_prefix(found + from.size());
  }
}

std::string text_upper(std::string_view text) { return mapped(text, upper); }
std::string text_lower(std::string_view text) { return mapped(text, lower); }

std::string text_capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t code) { return std::exchange(first, false) ? title(code) : lower(code); });
}

std::string text_title(std::string_view text) {
  bool inside = false;
  return mapped(text, [&](char32_t code) {
    const char32_t out = inside ? lower(code) : title(code);
    inside = is_cased(code);
    return out;
  });
}

std::string text_title_words(std::string_view text) {
  bool inside = false;
  return mapped(text, [&](char32_t code) {
    const bool cut =
        is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
    const char32_t out = inside ? lower(code) : upper(code);
    inside = !cut;
    return out;
  });
}

std::string text_escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string text_indent(std::string_view text, std::string_view with, bool first, bool blank) {
  // Jinja adds a line break before it cuts lines, so that a text's last break survives.
  std::string whole(text);
  whole += '\n';
  const auto lines = text_lines(whole, false);
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    const bool indented = i == 0 ? first : (blank || !lines[i].empty());
    if (indented) out += with;
    out += lines[i];
  }
  return out;
}

std::int64_t text_find(std::string_view text, std::string_view part) {
  const auto found = text.find(part);
  return found == std::string_view::npos ? -1 : static_cast<std::int64_t>(text_length(text.substr(0, found)));
}

std::int64_t text_count(std::string_view text, std::string_view part) {
  if (part.empty()) return static_cast<std::int64_t>(text_length(text)) + 1;
  std::int64_t count = 0;
  for (std::size_t position = text.find(part); position != std::string_view::npos;
       position = text.find(part, position + part.size())) {
    ++count;
  }
  return count;
}

}  // namespace switchyard::model::jinja
