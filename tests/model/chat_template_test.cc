// Templates against what Jinja makes of them; the references are written by
// tools/make_template_references.py.
#include "model/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace switchyard::model {
namespace {

using Json = nlohmann::ordered_json;

Json references() {
  std::ifstream file(std::filesystem::path("tests/data") /
                     "chat_templates.json");
  return Json::parse(file);
}

Result<std::string> rendered(std::string_view source, const Json& context) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed) return pass(parsed.error());
  return (*parsed)->render(context);
}

void expect_as_jinja(const std::string& source, const Json& context, const Json& expected) {
  const auto result = rendered(source, context);
  if (expected.is_null()) {
    EXPECT_FALSE(result) << "Jinja refuses\n" << source << "\nbut here it gives " << *result;
  } else if (!result) {
    ADD_FAILURE() << source << "\nis refused: " << result.error().message;
  } else {
    EXPECT_EQ(*result, expected.get<std::string>()) << "of " << source;
  }
}

TEST(ChatTemplate, RendersTheStylesOfKnownModelsAsJinjaDoes) {
  const auto all = references();
  for (const auto& style : all["styles"]) {
    SCOPED_TRACE(style["name"].get<std::string>());
    for (std::size_t i = 0; i < style["results"].size(); ++i) {
      SCOPED_TRACE(i);
      expect_as_jinja(style["source"], all["conversations"][i], style["results"][i]);
    }
  }
}

TEST(ChatTemplate, EveryConstructMeansWhatJinjaMeans) {
  const auto all = references();
  for (const auto& snippet : all["snippets"]) expect_as_jinja(snippet[0], all["context"], snippet[1]);
}

ErrorCode refusal(std::string_view source, const Json& context = Json::object()) {
  const auto result = rendered(source, context);
  EXPECT_FALSE(result) << source << " gives " << result->substr(0, 100);
  return result ? ErrorCode::io : result.error().code;
}

TEST(ChatTemplate, SyntaxErrorsNameTheLine) {
  const auto result = ChatTemplate::parse("a\nb\n{% if %}");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::corrupt);
  EXPECT_NE(result.error().message.find("line 3"), std::string::npos) << result.error().message;
  for (const char* source : {"{{", "{% if x %}", "{{ 'a }}", "{% endfor %}", "{{ (1 }}", "{{ 1 + }}",
                             "{% for x %}", "{# ", "{% raw %}", "{% set %}", "{{ a b }}", "{% break %}",
                             "{{ ] }}", "{{ a. }}", "{% macro %}", "{{ ? }}"}) {
    EXPECT_EQ(refusal(source), ErrorCode::corrupt) << source;
  }
}

TEST(ChatTemplate, WhatIsNotKnownIsNamed) {
  for (const char* source : {"{% include 'x' %}", "{{ 1|frobnicate }}", "{{ 1 is frobnicated }}",
                             "{% import 'a' as b %}", "{{ f(*a) }}"}) {
    EXPECT_EQ(refusal(source), ErrorCode::unsupported) << source;
  }
}

TEST(ChatTemplate, TheTemplatesOwnRefusalIsPassedOn) {
  const auto result = rendered("{{ raise_exception('roles must alternate') }}", Json::object());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::invalid);
  EXPECT_NE(result.error().message.find("roles must alternate"), std::string::npos);
}

TEST(ChatTemplate, NothingRunsAway) {
  const std::string deep(500, '(');
  std::string chain = "x";
  for (int i = 0; i < 1000; ++i) chain += ".a";
  std::string nots;
  for (int i = 0; i < 1000; ++i) nots += "not ";
  std::string blocks;
  for (int i = 0; i < 1000; ++i) blocks += "{% if 1 %}";
  for (const std::string& source : {"{{ " + deep, "{{ " + chain + " }}", "{{ " + nots + "1 }}", blocks,
                                    "{{ " + std::string(5000, '-') + "1 }}"}) {
    EXPECT_EQ(refusal(source), ErrorCode::corrupt) << source.substr(0, 20);
  }
  std::string maps = "{{ 'a'|map('map'";
  for (int i = 0; i < 100000; ++i) maps += ",'map'";
  maps += ")|list }}";
  EXPECT_EQ(refusal(maps), ErrorCode::exhausted);
  const std::string range = "range(99999)";
  for (const std::string& source : {
           std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
           "{% for a in " + range + " %}{% for b in " + range + " %}{% endfor %}{% endfor %}",
           std::string("{% set ns = namespace(x='abcdefgh') %}{% for i in range(99) %}{% set ns.x = ns.x ~ "
                       "ns.x %}{% endfor %}"),
           std::string("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x "
                       "%}{% endfor %}"),
           std::string("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] "
                       "%}{% endfor %}"),
           std::string(
               "{% set ns = namespace(x=[1]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
           "{{ 'a' * 99999999999 }}" + std::string(),
           std::string("{{ [1] * 99999999 }}"),
           "{% for a in " + range + " %}" + std::string(1000, 'x') + "{% endfor %}",
           std::string("{{ range(1000000) }}"),
           std::string("{{ ('a' * 100000)|replace('a', 'b' * 1000) }}"),
           std::string("{{ ('\\n' * 1000000)|indent(200, true, true) }}"),
           "{% set s = 'a' * 9999999 %}{% for a in " + range + " %}{% if 'b' in s %}{% endif %}{% endfor %}",
       }) {
    EXPECT_EQ(refusal(source), ErrorCode::exhausted) << source;
  }
}

TEST(ChatTemplate, ContextsAreBounded) {
  Json context = 1;
  for (int i = 0; i < 1000; ++i) context = Json::array({context});
  EXPECT_EQ(refusal("{{ x }}", Json{{"x", context}}), ErrorCode::invalid);
}

TEST(ChatTemplate, KeysOfAnUnorderedContextAreSorted) {
  const auto parsed = ChatTemplate::parse("{{ x|tojson }}");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*(*parsed)->render(nlohmann::json{{"x", {{"b", 1}, {"a", 2}}}}), R"({"a": 2, "b": 1})");
  EXPECT_EQ(*(*parsed)->render(Json{{"x", {{"b", 1}, {"a", 2}}}}), R"({"b": 1, "a": 2})");
}

TEST(ChatTemplate, KnowsTheDate) {
  const auto year = rendered("{{ strftime_now('%Y')|int > 2000 }}", Json::object());
  ASSERT_TRUE(year) << year.error().message;
  EXPECT_EQ(*year, "True");
}

TEST(ChatTemplate, MacrosOutliveTheirBlocks) {
  const auto out = rendered(
      "{% set ns = namespace() %}{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{% set ns.f = f %}"
      "{% endfor %}{% for j in [7, 8] %}{{ ns.f() }}{% endfor %}",
      Json::object());
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_EQ(*out, "22");
}

}  // namespace
}  // namespace switchyard::model
