// What an instance has to tell the dispatcher, in order, until the channel takes it.
//
// Tokens that the channel has no room for are put together, so that a dispatcher that is slow gets fewer and
// longer messages. Used by the instance's loop alone.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "pool/orders.h"

namespace switchyard::pool {

class Outbox {
 public:
  // Errors: exhausted (later); anything else: the message cannot be sent at all.
  using Send = std::function<Status(OrderType type, std::span<const std::byte> payload)>;
  explicit Outbox(Send send) : send_(std::move(send)) {}

  template <Record M>
  void report(const M& message) {
    waiting_.push_back({.type = M::kType, .payload = serialize(message)});
    flush();
  }
  void report(Tokens tokens);

  // Sends what can be sent. True: something is left.
  bool flush();
  // The most tokens of one request that wait here.
  std::size_t unreported_tokens() const;
  // The dispatcher takes nothing any more.
  bool full() const { return waiting_.size() > kMaxWaiting; }

 private:
  static constexpr std::size_t kMaxWaiting = 1 << 16;

  struct Message {
    OrderType type;
    std::vector<std::byte> payload;
    Tokens tokens{};  // of type tokens, instead of a payload
  };

  const Send send_;
  std::deque<Message> waiting_;
};

}  // namespace switchyard::pool
