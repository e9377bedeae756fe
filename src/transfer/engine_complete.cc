// What the rails report: completions of our writes, and arrivals of others'.
#include <algorithm>
#include <array>
#include <type_traits>

#include "base/log.h"
#include "transfer/engine_core.h"

namespace switchyard {

using transfer::kNoIndex;
using transfer::Path;
using transfer::Peer;
using transfer::TransferSlot;
using transfer::WorkRequest;

namespace {

constexpr int kPollsPerStep = 16;
constexpr std::size_t kCompletionBatch = 64;
static_assert(std::is_trivially_copyable_v<fabric::Completion>);
// A speed is believed when so much went over the path in one go.
constexpr std::uint64_t kMeasuredBytes = 512u << 10;
constexpr double kSmoothing = 0.25;
constexpr Nanos kConfirmLimit = std::chrono::milliseconds(10);

}  // namespace

bool EngineCore::poll_rails() {
  bool any = false;
  for (std::uint16_t i = 0; i < rails_.size(); ++i) any |= poll_rail(i);
  return any;
}

bool EngineCore::poll_rail(std::uint16_t rail) {
  // Not cleared: that would cost more than an empty poll. On the stack, since a completion may poll again.
  alignas(fabric::Completion) std::array<std::byte, kCompletionBatch * sizeof(fabric::Completion)> memory;
  const std::span completions(reinterpret_cast<fabric::Completion*>(memory.data()), kCompletionBatch);
  bool any = false;
  for (int i = 0; i < kPollsPerStep; ++i) {
    const std::size_t count = rails_[rail].rail->poll(completions);
    for (std::size_t j = 0; j < count; ++j) complete(completions[j]);
    any |= count != 0;
    if (count < completions.size()) break;
  }
  return any;
}

void EngineCore::arrived(std::uint32_t immediate) {
  const std::uint32_t index = (immediate >> 16) % static_cast<std::uint32_t>(peers_.size());
  using Outcome = transfer::ArrivalLog::Outcome;
  if (!peers_[index].arrivals.is_open() || (immediate >> 16) != peer_tag(index))
    return count_.stray_arrivals.add(1);
  Peer& peer = peers_[index];
  const Outcome outcome = peer.arrivals.arrival(immediate, *counters_);
  if (outcome == Outcome::stray) count_.stray_arrivals.add(1);
  if (outcome == Outcome::repeated) count_.repeated_arrivals.add(1);
  if (peer.arrivals.confirms_now()) return confirm_arrivals(peer);
  if (peer.arrivals.unconfirmed().empty() || peer.confirm_at != TimePoint::max()) return;
  peer.confirm_at = now_ + kConfirmLimit;
  arm_check(index, peer.confirm_at);
}

void EngineCore::confirm_arrivals(Peer& peer) {
  const auto numbers = peer.arrivals.unconfirmed();
  if (peer.local) {
    for (const std::uint16_t number : numbers) peer.numbers.confirm(number);
  } else {
    control_->send_path(peer.control, {.kind = transfer::PathRecord::Kind::counted,
                                       .counted = {numbers.begin(), numbers.end()}});
  }
  peer.arrivals.confirmed();
  peer.confirm_at = TimePoint::max();
}

// Takes a request off its path and its transfer.
void EngineCore::take_off(std::uint32_t index) {
  WorkRequest& request = requests_[index];
  Path& path = peers_[request.peer].paths[request.path];
  path.requests.remove(requests_, index);
  path.outstanding.subtract(1);
  path.outstanding_bytes.subtract(request.run.bytes);
  rails_[path.local].outstanding.subtract(1);
  --slots_[request.slot].outstanding;
  --outstanding_;
}

void EngineCore::measure(Path& path, std::uint64_t bytes) {
  path.last_progress = now_;
  path.marked_bytes += bytes;
  if (path.marked_bytes < kMeasuredBytes || now_ <= path.mark) return;
  const double seconds = to_seconds(now_ - path.mark);
  const double rate = static_cast<double>(path.marked_bytes) / seconds;
  path.rate = path.rate == 0 ? rate : path.rate + kSmoothing * (rate - path.rate);
  path.shown_rate.set(static_cast<std::uint64_t>(path.rate));
  path.mark = now_;
  path.marked_bytes = 0;
}

void EngineCore::complete(const fabric::Completion& completion) {
  using Kind = fabric::Completion::Kind;
  if (completion.kind == Kind::arrived) return arrived(completion.immediate);
  const auto index = static_cast<std::uint32_t>(completion.cookie);
  if (index >= requests_.size()) return;
  WorkRequest& request = requests_[index];
  if (request.generation != static_cast<std::uint32_t>(completion.cookie >> 32)) return;
  if (request.state != WorkRequest::State::posted || request.completed) return;
  if (request.kind == WorkRequest::Kind::probe) return probed(index, completion);
  Peer& peer = peers_[request.peer];
  Path& path = peer.paths[request.path];
  const std::uint32_t slot_index = request.slot;
  if (completion.kind == Kind::delivered) {
    measure(path, request.run.bytes);
    take_off(index);
    free_request(index);
    if (peer.wants_posting()) want_posting(slots_[slot_index].peer);
    advance(slot_index);
    return;
  }
  transfer::EngineRail& rail = rails_[path.local];
  rail.failed_requests.add(1);
  const std::string why = rail.rail->describe_error(completion.error);
  if (completion.refused) {
    TransferSlot& slot = slots_[slot_index];
    // What the other side needs to count the transfer has not come to it, or what has come lacks something:
    // it confirms no number of this one.
    slot.arrival_posted = false;
    take_off(index);
    free_request(index);
    // Often all writes of a transfer are refused; the first has ended it, and the others say nothing new.
    if (!slot.ended) {
      Error error{ErrorCode::io, fmt::format("a write to {}:{} over {} failed: {}", peer.address.control_host,
                                             peer.address.control_port, rail.fabric, why)};
      log::warn("engine '{}': {}", options_.name, error.message);
      end(slot_index, pass(error));
    } else if (slot.outstanding == 0) {
      release(slot_index);
    }
    return;
  }
  // The path takes all its requests along; they come back when it is settled.
  request.completed = true;
  fail_path(request.peer, request.path, why);
}

// After something of the transfer has been delivered: is it whole, or has it something to post again?
void EngineCore::advance(std::uint32_t index) {
  TransferSlot& slot = slots_[index];
  if (slot.outstanding != 0) return;
  if (slot.ended) return release(index);
  const bool data_left = !slot.again.empty() || !slot.plan.finished();
  if (!data_left && (!slot.counter || slot.arrival_posted)) return end(index, {});
  queue(index);
}

}  // namespace switchyard
