#include "gateway/token_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace switchyard::gateway {

TokenQueue::TokenQueue(std::shared_ptr<IoLoop> loop, std::size_t limit, std::function<void()> wake)
    : loop_(std::move(loop)), limit_(limit), wake_(std::move(wake)) {}

void TokenQueue::on_token(const model::SampledToken& token) {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || overflowed_ || end_) return;
    if (tokens_.size() - taken_ >= limit_) {
      overflowed_ = true;
    } else {
      tokens_.push_back(token);
    }
    if (std::exchange(wake_scheduled_, true)) return;
  }
  schedule_wake();
}

void TokenQueue::on_end(const pool::GenerationEnd& end) {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || end_) return;
    end_ = end;
    if (std::exchange(wake_scheduled_, true)) return;
  }
  schedule_wake();
}

void TokenQueue::schedule_wake() {
  loop_->post([self = shared_from_this()] {
    {
      std::lock_guard lock(self->mutex_);
      self->wake_scheduled_ = false;
      if (self->closed_) return;
    }
    if (self->wake_) self->wake_();
  });
}

TokenQueue::Batch TokenQueue::take(std::size_t most) {
  Batch batch;
  std::lock_guard lock(mutex_);
  const std::size_t count = std::min(most, tokens_.size() - taken_);
  const auto first = tokens_.begin() + static_cast<std::ptrdiff_t>(taken_);
  batch.tokens.assign(std::make_move_iterator(first),
                      std::make_move_iterator(first + static_cast<std::ptrdiff_t>(count)));
  taken_ += count;
  if (taken_ == tokens_.size()) {
    tokens_.clear();
    taken_ = 0;
    batch.overflowed = overflowed_;
    if (!overflowed_) batch.end = std::exchange(end_, std::nullopt);
  } else if (taken_ > tokens_.size() / 2) {
    tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(taken_));
    taken_ = 0;
  }
  return batch;
}

bool TokenQueue::overflowed() const {
  std::lock_guard lock(mutex_);
  return overflowed_;
}

void TokenQueue::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  tokens_.clear();
  taken_ = 0;
}

}  // namespace switchyard::gateway
