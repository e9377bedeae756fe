// Server-sent events of a streamed completion: bytes, however they were cut, to events, and events to tokens.
// Pure; not thread-safe. Bounded by kMaxEventBytes and by the tokens that were asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::bench {

class EventStream {
 public:
  static constexpr std::size_t kMaxEventBytes = 1 << 20;
  using OnEvent = std::function<void(std::string_view data)>;

  // Calls `on_event` with the data of every event that is complete. Errors: corrupt (an event too large).
  Status feed(std::string_view bytes, const OnEvent& on_event);

 private:
  void take_line(std::string_view line, const OnEvent& on_event);

  std::string line_;  // the beginning of a line whose end has not come
  std::string data_;
  bool has_data_ = false;
};

// What the chunks of a completion (or chat completion) tell.
class TokenTimes {
 public:
  // `most`: tokens beyond are not recorded.
  explicit TokenTimes(std::uint32_t most) : most_(most) {}

  // Tokens are counted by `token_ids` where the server sends them, else one for each chunk with text.
  void take(std::string_view data, Nanos now);

  const std::vector<Nanos>& times() const { return times_; }
  std::vector<Nanos> release() { return std::move(times_); }
  // A finish reason or [DONE] has come.
  bool finished() const { return finished_; }
  // What the server (or the stream itself, when it is no JSON) complains of; empty: nothing.
  const std::string& error() const { return error_; }
  std::optional<std::uint32_t> usage() const { return usage_; }

 private:
  const std::uint32_t most_;
  std::vector<Nanos> times_;
  bool finished_ = false;
  std::string error_;
  std::optional<std::uint32_t> usage_;  // completion tokens, as the server counts them
};

// The message of an error in OpenAI's form, or the text itself, cut to a line.
std::string error_message(std::string_view body);
// Its code; empty: it has none.
std::string error_code(std::string_view body);

}  // namespace switchyard::bench
