#include "gateway/choice_text.h"

#include <algorithm>
#include <utility>

namespace switchyard::gateway {
namespace {

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

ChoiceText::ChoiceText(std::unique_ptr<TextDecoder> decoder, const std::vector<std::string>& stops,
                       bool keep_tokens)
    : decoder_(std::move(decoder)), stops_(stops), keep_tokens_(keep_tokens) {}

void ChoiceText::push(const model::SampledToken& token) {
  ++token_count_;
  const std::string text = decoder_->push(token.token);
  if (keep_tokens_) {
    pending_.push_back({{token, decoded_characters_, false}, decoded_bytes_, decoded_bytes_ + text.size()});
    decoded_characters_ += count_characters(text);
  }
  decoded_bytes_ += text.size();
  std::string free = stops_.push(text);
  deliver(std::move(free), stops_.matched());
}

void ChoiceText::finish() {
  if (stopped()) return;
  std::string text = stops_.push(decoder_->finish());
  if (!stopped()) text += stops_.finish();
  deliver(std::move(text), true);
}

void ChoiceText::deliver(std::string text, bool last) {
  delivered_bytes_ += text.size();
  delta_.text += text;
  // At the end everything goes out: what begins behind the delivered text was inside a stop string.
  while (!pending_.empty() && (last || pending_.front().end <= delivered_bytes_)) {
    Pending& next = pending_.front();
    next.token.cut = stopped() && next.begin >= delivered_bytes_;
    delta_.tokens.push_back(std::move(next.token));
    pending_.pop_front();
  }
}

ChoiceDelta ChoiceText::take() { return std::exchange(delta_, {}); }

}  // namespace switchyard::gateway
