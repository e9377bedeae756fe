// One choice of one request: its tokens turned into text that may be delivered, stop strings cut off, and
// every token kept beside the text that it made.
//
// Bounded by the number of tokens. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "gateway/served_text.h"
#include "gateway/stop_matcher.h"
#include "model/sampler.h"

namespace switchyard::gateway {

struct DeliveredToken {
  model::SampledToken token;
  std::size_t text_offset = 0;  // characters of the choice's text before this token
  bool cut = false;             // wholly inside a stop string: its text is not delivered
};

// What may be sent now. A token comes with the text that completes it.
struct ChoiceDelta {
  std::string text;
  std::vector<DeliveredToken> tokens;
};

class ChoiceText {
 public:
  // `keep_tokens`: deltas carry tokens, not text alone.
  ChoiceText(std::unique_ptr<TextDecoder> decoder, const std::vector<std::string>& stops, bool keep_tokens);

  // Nothing may be pushed once stopped() is true.
  void push(const model::SampledToken& token);
  void finish();
  bool stopped() const { return stops_.matched(); }
  // Tokens pushed so far, those of a stop string included.
  std::uint32_t token_count() const { return token_count_; }
  bool has_text() const { return !delta_.text.empty(); }
  // Everything deliverable since the last take().
  ChoiceDelta take();

 private:
  struct Pending {
    DeliveredToken token;
    std::size_t begin = 0, end = 0;  // bytes of the decoded text
  };
  void deliver(std::string text, bool last);

  std::unique_ptr<TextDecoder> decoder_;
  StopMatcher stops_;
  bool keep_tokens_;
  std::uint32_t token_count_ = 0;
  std::size_t decoded_bytes_ = 0;
  std::size_t decoded_characters_ = 0;
  std::size_t delivered_bytes_ = 0;
  std::deque<Pending> pending_;
  ChoiceDelta delta_;
};

}  // namespace switchyard::gateway
