// JSON text, written straight into a string: keys in the order given, no tree in between.
//
// The caller nests begin and end correctly; commas are put by the writer. Not thread-safe; allocates only in
// the target string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard::gateway {

// Appends `text` as a JSON string with quotes. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

bool is_utf8(std::string_view text);

class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(&out) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& string(std::string_view text);
  JsonWriter& integer(std::int64_t value);
  // Shortest text that reads back as the same number; infinities and NaN, which JSON lacks, become null.
  JsonWriter& number(float value);
  JsonWriter& boolean(bool value) { return raw(value ? "true" : "false"); }
  JsonWriter& null() { return raw("null"); }
  // A value that is JSON already.
  JsonWriter& raw(std::string_view json);

 private:
  void separate();
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);

  std::string* out_;
  bool comma_ = false;  // a value stands before, on this level
};

}  // namespace switchyard::gateway
