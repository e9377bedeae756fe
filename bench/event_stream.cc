#include "event_stream.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace switchyard::bench {
namespace {

constexpr std::size_t kMaxMessage = 200;

using Json = nlohmann::json;

// The member of an object, or nothing; never throws.
const Json* member(const Json* json, const char* key) {
  if (json == nullptr || !json->is_object()) return nullptr;
  const auto found = json->find(key);
  return found == json->end() ? nullptr : &*found;
}

bool has_text(const Json* text) {
  return text != nullptr && text->is_string() && !text->empty() && *text != "";
}

std::string one_line(std::string_view text) {
  std::string line(text.substr(0, kMaxMessage));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = ' ';
  }
  return line;
}

// A field of an error in OpenAI's form, or `otherwise`.
std::string error_field(std::string_view body, const char* name, std::string_view otherwise) {
  const Json json = Json::parse(body, nullptr, false);
  const Json* field = member(member(&json, "error"), name);
  const bool there = field != nullptr && field->is_string();
  return one_line(there ? std::string_view(field->get_ref<const std::string&>()) : otherwise);
}

}  // namespace

Status EventStream::feed(std::string_view bytes, const OnEvent& on_event) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (line_.size() + data_.size() > kMaxEventBytes) {
      return fail(ErrorCode::corrupt, "an event of the stream is larger than {} bytes", kMaxEventBytes);
    }
    if (end == std::string_view::npos) return {};
    bytes.remove_prefix(end + 1);
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    take_line(line, on_event);
    line_.clear();
  }
  return {};
}

void EventStream::take_line(std::string_view line, const OnEvent& on_event) {
  if (line.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  constexpr std::string_view kData = "data:";
  if (!line.starts_with(kData)) return;  // a comment, or a field that means nothing here
  line.remove_prefix(kData.size());
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

void TokenTimes::take(std::string_view data, Nanos now) {
  if (data == "[DONE]") {
    finished_ = true;
    return;
  }
  const Json json = Json::parse(data, nullptr, false);
  if (!json.is_object()) {
    if (error_.empty()) error_ = "the stream holds what is no JSON object: " + one_line(data);
    return;
  }
  if (const Json* error = member(&json, "error"); error != nullptr && !error->is_null()) {
    error_ = error_message(data);
    return;
  }
  const Json* completion = member(member(&json, "usage"), "completion_tokens");
  if (completion != nullptr && completion->is_number_unsigned() && *completion <= UINT32_MAX)
    usage_ = completion->get<std::uint32_t>();
  const Json* choices = member(&json, "choices");
  if (choices == nullptr || !choices->is_array() || choices->empty()) return;
  const Json* choice = &choices->front();
  const Json* ids = member(choice, "token_ids");
  std::size_t count = 0;
  if (ids != nullptr && ids->is_array()) {
    count = ids->size();
  } else if (has_text(member(choice, "text")) || has_text(member(member(choice, "delta"), "content"))) {
    count = 1;
  }
  times_.insert(times_.end(), std::min<std::size_t>(count, most_ - times_.size()), now);
  const Json* reason = member(choice, "finish_reason");
  if (reason != nullptr && reason->is_string()) finished_ = true;
}

std::string error_message(std::string_view body) { return error_field(body, "message", body); }
std::string error_code(std::string_view body) { return error_field(body, "code", {}); }

}  // namespace switchyard::bench
