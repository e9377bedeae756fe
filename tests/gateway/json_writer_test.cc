#include "gateway/json_writer.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace switchyard::gateway {
namespace {

std::string json_text(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonWriter, EscapesSoThatEveryStringReadsBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  all += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  EXPECT_EQ(nlohmann::json::parse(json_text(all)).get<std::string>(), all);
}

TEST(JsonWriter, ReplacesWhatIsNotUtf8) {
  const std::string replacement = "\xEF\xBF\xBD";
  EXPECT_EQ(json_text("a\xFF"
                      "b"),
            "\"a" + replacement + "b\"");
  EXPECT_EQ(json_text("\xE2\x82"), "\"" + replacement + replacement + "\"");
  EXPECT_EQ(json_text("\xC0\x80"), "\"" + replacement + replacement + "\"");                    // overlong
  EXPECT_EQ(json_text("\xED\xA0\x80"), "\"" + replacement + replacement + replacement + "\"");  // surrogate
  EXPECT_FALSE(is_utf8("\xF4\x90\x80\x80"));
  EXPECT_TRUE(is_utf8("\xF4\x8F\xBF\xBF"));
}

TEST(JsonWriter, PutsCommasAndNumbers) {
  std::string out;
  JsonWriter writer(out);
  writer.begin_object().key("a").begin_array().integer(-1).number(0.1f).boolean(true).null();
  writer.number(std::numeric_limits<float>::infinity()).begin_object().end_object().end_array();
  writer.key("b").raw("[]").end_object();
  EXPECT_EQ(out, R"({"a":[-1,0.1,true,null,null,{}],"b":[]})");
}

}  // namespace
}  // namespace switchyard::gateway
