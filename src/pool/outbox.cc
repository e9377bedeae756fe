#include "pool/outbox.h"

#include <algorithm>

#include "base/log.h"

namespace switchyard::pool {

void Outbox::report(Tokens tokens) {
  if (tokens.entries.empty()) return;
  if (waiting_.empty() || waiting_.back().type != OrderType::tokens ||
      waiting_.back().tokens.job != tokens.job) {
    waiting_.push_back({.type = OrderType::tokens, .tokens = std::move(tokens)});
  } else {
    auto& entries = waiting_.back().tokens.entries;
    for (Tokens::Entry& entry : tokens.entries) {
      const auto same = std::find_if(entries.begin(), entries.end(), [&entry](const Tokens::Entry& each) {
        return each.ticket == entry.ticket;
      });
      if (same == entries.end()) {
        entries.push_back(std::move(entry));
        continue;
      }
      std::move(entry.tokens.begin(), entry.tokens.end(), std::back_inserter(same->tokens));
      same->outcome = entry.outcome;
      same->error = std::move(entry.error);
    }
  }
  flush();
}

bool Outbox::flush() {
  while (!waiting_.empty()) {
    const Message& next = waiting_.front();
    const Status sent = next.type == OrderType::tokens ? send_(next.type, serialize(next.tokens))
                                                       : send_(next.type, next.payload);
    if (!sent && sent.error().code == ErrorCode::exhausted) return true;
    if (!sent && sent.error().code != ErrorCode::peer_lost) {
      log::error("a message of type {} was not sent: {}", static_cast<int>(next.type), sent.error().message);
    }
    waiting_.pop_front();
  }
  return false;
}

std::size_t Outbox::unreported_tokens() const {
  std::size_t most = 0;
  for (const Message& message : waiting_) {
    for (const auto& entry : message.tokens.entries) most = std::max(most, entry.tokens.size());
  }
  return most;
}

}  // namespace switchyard::pool
