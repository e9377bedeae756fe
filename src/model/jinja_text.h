// Python's string operations, by characters and not by bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::model::jinja {

std::size_t text_length(std::string_view text);
// The characters, each as a view.
std::vector<std::string_view> text_characters(std::string_view text);

bool is_space(char32_t code);  // as str.isspace has it

// Without `characters`: white space.
std::string_view text_strip(std::string_view text, std::optional<std::string_view> characters, bool left,
                            bool right);
// Without `separator`: at runs of white space. `most` < 0: at all of them.
std::vector<std::string_view> text_split(std::string_view text, std::optional<std::string_view> separator,
                                         std::int64_t most);
std::vector<std::string_view> text_split_right(std::string_view text, std::string_view separator,
                                               std::int64_t most);
std::vector<std::string_view> text_lines(std::string_view text, bool keep_ends);
std::string text_replace(std::string_view text, std::string_view from, std::string_view to, std::int64_t most,
                         std::size_t max_bytes);

// One character to one character, as Unicode's simple mappings have it.
std::string text_upper(std::string_view text);
std::string text_lower(std::string_view text);
std::string text_capitalize(std::string_view text);
// Every run of letters begins with a capital: str.title, and Jinja's filter of that name, which cuts at
// blanks, hyphens and opening brackets instead.
std::string text_title(std::string_view text);
std::string text_title_words(std::string_view text);
std::string text_escape_html(std::string_view text);
std::string text_indent(std::string_view text, std::string_view with, bool first, bool blank);
// Index in characters, or -1.
std::int64_t text_find(std::string_view text, std::string_view part);
std::int64_t text_count(std::string_view text, std::string_view part);

}  // namespace switchyard::model::jinja
