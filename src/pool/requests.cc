#include "pool/requests.h"

#include <algorithm>

#include "base/log.h"
#include "model/kv_layout.h"
#include "pool/job.h"

namespace switchyard::pool {

using Stage = HeldRequest::Stage;
using Ending = HeldRequest::Ending;

void Requests::introduce(Introduce order) {
  const Ticket ticket = order.ticket;
  if (HeldRequest* known = find(ticket)) {
    if (known->stage != Stage::leaving) {
      return log::error("request {} was introduced twice", ticket.id);
    }
    // Its KV has arrived elsewhere and comes back before this instance has heard that it is gone.
    by_ticket_.erase(ticket);
  }
  if (held_.size() >= kMaxHeld) {
    return outbox_.report(
        KvLost{ticket, {ErrorCode::exhausted, fmt::format("the instance holds {} requests", kMaxHeld)}});
  }
  auto request = std::make_unique<HeldRequest>();
  request->serial = next_serial_++;
  request->history = std::move(order.prompt);
  request->prompt_tokens = request->history.size();
  request->history.insert(request->history.end(), order.output.begin(), order.output.end());
  order.prompt.clear();
  order.output.clear();
  request->what = std::move(order);
  by_ticket_[ticket] = request->serial;
  held_.emplace(request->serial, std::move(request));
}

HeldRequest* Requests::find(const Ticket& ticket) {
  const auto found = by_ticket_.find(ticket);
  return found == by_ticket_.end() ? nullptr : find(found->second);
}

HeldRequest* Requests::find(std::uint64_t serial) {
  const auto found = held_.find(serial);
  return found == held_.end() ? nullptr : found->second.get();
}

HeldRequest* Requests::find_or_tell(const Ticket& ticket) {
  HeldRequest* const request = find(ticket);
  // One that drains tells by itself.
  if (request != nullptr) return request->stage == Stage::draining ? nullptr : request;
  outbox_.report(KvLost{ticket, {ErrorCode::not_found, "the instance does not know this request"}});
  return nullptr;
}

void Requests::want(HeldRequest& request, std::uint32_t count, TimePoint until, std::function<void()> then) {
  request.stage = Stage::wanting;
  request.wanted = count;
  request.want_until = until;
  request.then = std::move(then);
  wanting_.push_back(request.serial);
}

void Requests::serve_wants(TimePoint now) {
  while (!wanting_.empty()) {
    HeldRequest* const request = find(wanting_.front());
    if (request == nullptr || request->stage != Stage::wanting) {
      wanting_.pop_front();
      continue;
    }
    const auto& shape = request->what.shape;
    // A shape from outside: its sizes must not overflow.
    const bool sane = shape.block_tokens == model::kBlockTokens && shape.layers != 0 &&
                      shape.layer_bytes != 0 && shape.layer_bytes <= memory_.slab_bytes() &&
                      shape.layers <= memory_.slab_bytes() / shape.layer_bytes;
    const Status taken =
        !sane ? Status(fail(ErrorCode::invalid,
                            "KV blocks of {} tokens with {} layers of {} bytes do not fit slabs of {} bytes",
                            shape.block_tokens, shape.layers, shape.layer_bytes, memory_.slab_bytes()))
              : memory_.take(request->block_bytes(), request->wanted, request->blocks, *this);
    if (taken) {
      wanting_.pop_front();
      std::exchange(request->then, {})();
      continue;
    }
    if (taken.error().code == ErrorCode::exhausted && now < request->want_until) return;
    wanting_.pop_front();
    lose(*request, taken.error());
  }
}

TimePoint Requests::next_deadline() const {
  if (wanting_.empty()) return TimePoint::max();
  const auto first = held_.find(wanting_.front());
  return first == held_.end() ? TimePoint::min() : first->second->want_until;
}

bool Requests::grow(HeldRequest& request) {
  return memory_.take(request.block_bytes(), 1, request.blocks, *this).has_value();
}

std::uint32_t Requests::reuse(HeldRequest& request) {
  return prompts_.reuse(request.what.model, request.history, request.blocks);
}

void Requests::keep(const HeldRequest& request) {
  prompts_.keep(request.what.model, request.block_bytes(),
                std::span(request.history).first(request.kv_tokens.value_or(0)), request.blocks);
}

void Requests::make_ready(HeldRequest& request) {
  request.stage = Stage::ready;
  const std::uint64_t serial = request.serial;
  for (HeldRequest* still = &request;
       still != nullptr && still->stage == Stage::ready && !still->deferred.empty(); still = find(serial)) {
    const auto order = std::move(still->deferred.front());
    still->deferred.pop_front();
    order();
  }
}

void Requests::when_ready(HeldRequest& request, std::function<void(HeldRequest&)> order) {
  if (request.stage == Stage::ready && request.job == nullptr) return order(request);
  const bool coming = (request.stage == Stage::wanting || request.stage == Stage::filling) &&
                      request.job == nullptr && request.deferred.size() < kMaxDeferred;
  if (!coming) {
    return lose(request, {ErrorCode::invalid, "its KV was ordered to move while it is not here or in use"});
  }
  request.deferred.push_back([this, serial = request.serial, order = std::move(order)] {
    if (HeldRequest* const ready = find(serial)) order(*ready);
  });
}

void Requests::lose(HeldRequest& request, Error why) {
  if (request.stage == Stage::draining) return;
  ++lost_;
  end(request, Ending::lost, std::move(why));
}

void Requests::end_silently(HeldRequest& request) {
  if (request.stage != Stage::draining) end(request, Ending::silent, {});
}

void Requests::release(const Release& order) {
  HeldRequest* const request = find(order.ticket);
  if (request == nullptr) return outbox_.report(Released{order.ticket});
  request->writer_over = request->writer_over || order.writer_done;
  if (request->stage != Stage::draining) return end(*request, Ending::released, {});
  request->ending = Ending::released;
  settle(*request);
}

void Requests::end(HeldRequest& request, Ending ending, Error why) {
  if (request.job != nullptr) request.job->drop(request);
  request.job = nullptr;
  request.stage = Stage::draining;
  request.ending = ending;
  request.why = std::move(why);
  request.then = {};
  request.deferred.clear();
  request.stop_copies->store(true);
  if (request.push) {
    request.push->cancel([this, serial = request.serial] {
      post_([this, serial] {
        if (HeldRequest* const drained = find(serial)) push_gone(*drained);
      });
    });
  }
  settle(request);
}

void Requests::push_gone(HeldRequest& request) {
  request.push.reset();
  settle(request);
}

void Requests::copy_done(HeldRequest& request) {
  --request.copies;
  settle(request);
}

void Requests::writer_gone(const PeerKey& writer, const Error& why) {
  std::vector<std::uint64_t> serials;
  for (const auto& [serial, request] : held_) {
    if (request->writer == writer && !request->writer_over) serials.push_back(serial);
  }
  for (const std::uint64_t serial : serials) {
    HeldRequest* const request = find(serial);
    if (request == nullptr) continue;
    request->writer_over = true;
    if (request->stage == Stage::draining) {
      settle(*request);
    } else {
      lose(*request, why);
    }
  }
}

void Requests::settle(HeldRequest& request) {
  if (request.stage == Stage::draining && !request.moving()) forget(request);
}

void Requests::forget(HeldRequest& request) {
  prompts_.give_back(request.block_bytes(), request.blocks);
  const Ticket ticket = request.ticket();
  const Ending ending = request.ending;
  const Error why = std::move(request.why);
  // Another may bear its ticket by now.
  const auto named = by_ticket_.find(ticket);
  const bool known = named != by_ticket_.end() && named->second == request.serial;
  if (known) by_ticket_.erase(named);
  held_.erase(request.serial);
  if (!known) return;
  if (ending == Ending::lost) outbox_.report(KvLost{ticket, why});
  if (ending == Ending::released) outbox_.report(Released{ticket});
}

bool Requests::may_move(std::size_t block_bytes) const {
  return std::none_of(held_.begin(), held_.end(), [block_bytes](const auto& entry) {
    const HeldRequest& request = *entry.second;
    return whole_units(request.block_bytes()) == block_bytes && request.moving();
  });
}

void Requests::moved(std::size_t block_bytes, const MovedBlocks& moved) {
  for (auto& [serial, request] : held_) {
    if (whole_units(request->block_bytes()) == block_bytes) moved.apply(request->blocks);
  }
  prompts_.moved(moved);
}

bool Requests::give_up(std::size_t block_bytes) { return prompts_.give_up(block_bytes); }

void Requests::add_stats(Stats& stats) const {
  std::size_t wanting = 0;
  std::size_t receiving = 0;
  std::size_t sending = 0;
  for (const auto& [serial, request] : held_) {
    wanting += request->stage == Stage::wanting ? 1 : 0;
    receiving += request->stage == Stage::filling ? 1 : 0;
    sending += request->push != nullptr || (request->copies != 0 && !request->host_blocks.empty()) ? 1 : 0;
  }
  stats.gauge("requests_held", "Requests that the instance knows", static_cast<double>(held_.size()));
  stats.gauge("requests_waiting", "Requests that wait for KV blocks", static_cast<double>(wanting));
  stats.gauge("requests_receiving", "Requests whose KV comes from elsewhere", static_cast<double>(receiving));
  stats.gauge("requests_sending", "Requests whose KV goes elsewhere", static_cast<double>(sending));
  prompts_.add_stats(stats);
  stats.count("requests_lost_total", "Requests whose KV was lost", static_cast<double>(lost_));
}

}  // namespace switchyard::pool
