#include "model/tokenizer.h"
#include "model/unicode.h"

namespace switchyard::model {

std::string TextStream::push(std::int32_t token) {
  if (skip_special_ && tokenizer_->is_special(token)) return {};
  std::string bytes = tokenizer_->token_bytes(token);
  if (bytes.empty()) return {};
  if (first_) {
    first_ = false;
    const auto leading = tokenizer_->spec().leading_space;
    if (leading == LeadingSpace::one_removed && bytes.starts_with(' ')) bytes.erase(0, 1);
    if (leading == LeadingSpace::first_token_removed) std::erase(bytes, ' ');
  }
  waiting_ += bytes;
  std::string out;
  std::size_t position = 0;
  while (position < waiting_.size()) {
    const Utf8Step step = utf8_step(waiting_, position);
    if (step.state == Utf8State::truncated) break;
    out += step.state == Utf8State::valid ? std::string_view(waiting_).substr(position, step.length)
                                          : kReplacement;
    position += step.length;
  }
  waiting_.erase(0, position);
  return out;
}

std::string TextStream::finish() {
  std::string out = utf8_repair(waiting_);
  waiting_.clear();
  first_ = true;
  return out;
}

}  // namespace switchyard::model
