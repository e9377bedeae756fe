// Posting and completions: fair between peers and between the transfers of a peer, within each peer's window.
#include <algorithm>
#include <array>

#include "base/log.h"
#include "transfer/engine_core.h"

namespace switchyard {

using transfer::kNoIndex;
using transfer::Peer;
using transfer::Run;
using transfer::TransferSlot;
using transfer::WritePlan;

namespace {

constexpr std::size_t kBatch = 32;              // requests of one turn of one transfer
constexpr std::uint64_t kTurnBytes = 1u << 20;  // and bytes, more or less
constexpr std::uint64_t kStepBytes = 4u << 20;  // posted between two looks at completions and sockets
constexpr std::size_t kCompletionBatch = 64;
constexpr int kPollsPerStep = 16;
constexpr Nanos kAsleepAfter = std::chrono::microseconds(300);  // a reader that nothing came for may nap

}  // namespace

bool EngineCore::poll_rail() {
  std::array<fabric::Completion, kCompletionBatch> completions;
  bool any = false;
  for (int i = 0; i < kPollsPerStep; ++i) {
    const std::size_t count = rail_->poll(completions);
    for (std::size_t j = 0; j < count; ++j) complete(completions[j]);
    any |= count != 0;
    if (count < completions.size()) break;
  }
  return any;
}

void EngineCore::complete(const fabric::Completion& completion) {
  if (completion.kind == fabric::Completion::Kind::arrived) {
    if (!counters_->arrival(completion.immediate))
      count_.stray_immediates.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const auto index = static_cast<std::uint32_t>(completion.cookie);
  if (index >= slots_.size()) return;
  TransferSlot& slot = slots_[index];
  if (!slot.started || slot.generation != static_cast<std::uint32_t>(completion.cookie >> 32)) return;
  const std::uint32_t count = std::min(completion.count, slot.outstanding);
  slot.outstanding -= count;
  outstanding_ -= count;
  Peer& peer = peers_[slot.peer];
  const bool peer_lives = peer.generation == slot.peer_generation;
  if (peer_lives) {
    peer.outstanding -= count;
    if (!peer.writes.empty()) want_posting(slot.peer);
  }
  if (completion.kind == fabric::Completion::Kind::failed && !slot.ended) {
    Error error{ErrorCode::io,
                fmt::format("a write to {}:{} over {} failed: {}", peer.address.control_host,
                            peer.address.control_port, rail_name_, rail_->describe_error(completion.error))};
    log::warn("engine '{}': {}", options_.name, error.message);
    // The same release as below: end() frees the slot when nothing is outstanding.
    end(index, pass(error));
    return;
  }
  if (slot.outstanding != 0) return;
  if (slot.ended) {
    release(index);
  } else if (slot.plan.finished()) {
    if (!slot.immediate || slot.immediate_posted) {
      end(index, {});
    } else if (peer_lives && !slot.link.listed) {
      // Everything has been delivered; now it may be counted.
      peer.writes.push_back(slots_, index);
      want_posting(slot.peer);
    }
  }
}

void EngineCore::want_posting(std::uint32_t peer_index) {
  if (!peers_[peer_index].link.listed) busy_peers_.push_back(peers_, peer_index);
}

bool EngineCore::schedule() {
  bool any = false;
  starved_ = false;
  const std::uint64_t before = count_.bytes_written.load(std::memory_order_relaxed);
  for (bool progress = true; progress;) {
    progress = false;
    // One turn for each peer that has something to post.
    const std::uint32_t first = busy_peers_.front();
    for (std::uint32_t index = first; index != kNoIndex;) {
      const std::uint32_t next = peers_[index].link.next;
      Peer& peer = peers_[index];
      bool posted = send_messages(index);
      posted |= post_some(index);
      progress |= posted;
      if (peer.writes.empty() && peer.messages.empty()) busy_peers_.remove(peers_, index);
      index = next;
    }
    any |= progress;
    if (count_.bytes_written.load(std::memory_order_relaxed) - before >= kStepBytes) break;
    poll_rail();
  }
  return any;
}

// One turn of the peer's first transfer, which then goes to the end of the queue.
bool EngineCore::post_some(std::uint32_t peer_index) {
  Peer& peer = peers_[peer_index];
  if (peer.writes.empty() || peer.state != Peer::State::open) return false;
  const auto& capabilities = rail_->capabilities();
  if (peer.outstanding >= capabilities.window) return false;
  const std::uint32_t index = peer.writes.front();
  TransferSlot& slot = slots_[index];
  if (slot.kind == TransferSlot::Kind::connect ||
      (slot.plan.finished() && (!slot.immediate || slot.immediate_posted))) {
    end(index, {});
    return true;
  }

  std::array<fabric::WriteRequest, kBatch> requests;
  std::array<WritePlan::Position, kBatch> positions;
  const std::size_t room = std::min<std::size_t>(kBatch, capabilities.window - peer.outstanding);
  const std::uint64_t cookie = std::uint64_t{slot.generation} << 32 | index;
  std::size_t count = 0;
  std::uint64_t bytes = 0;
  while (count < room && bytes < kTurnBytes && !slot.plan.finished()) {
    const Run run = slot.plan.peek(capabilities.max_write_bytes);
    positions[count] = slot.plan.position();
    slot.plan.take(run);
    requests[count] = {.source = slot.source.base() + run.source_offset,
                       .source_memory = slot.source.state()->memory.get(),
                       .bytes = run.bytes,
                       .target_address = slot.target.address + run.target_offset,
                       .target_key = slot.target.key,
                       .cookie = cookie};
    ++count;
    bytes += run.bytes;
  }
  if (slot.plan.finished() && slot.immediate && !slot.immediate_posted) {
    if (count == 0) {
      requests[0] = {.target_address = slot.target.address, .target_key = slot.target.key, .cookie = cookie};
      count = 1;
    }
    // The immediate rides on the last write where that arrives last, or is the only one; else it follows
    // alone.
    if (capabilities.ordered || (count == 1 && slot.outstanding == 0)) {
      requests[count - 1].has_immediate = true;
      requests[count - 1].immediate = *slot.immediate;
    }
  }
  const std::size_t taken = rail_->post(peer.rail_peer, std::span(requests.data(), count));
  std::uint64_t posted_bytes = 0;
  for (std::size_t i = 0; i < taken; ++i) {
    posted_bytes += requests[i].bytes;
    slot.immediate_posted |= requests[i].has_immediate;
  }
  if (taken < count) {
    if (requests[taken].bytes != 0) slot.plan.seek(positions[taken]);
    starved_ = true;
    count_.retries.fetch_add(1, std::memory_order_relaxed);
  }
  const auto posted = static_cast<std::uint32_t>(taken);
  slot.outstanding += posted;
  peer.outstanding += posted;
  outstanding_ += posted;
  count_.bytes_written.fetch_add(posted_bytes, std::memory_order_relaxed);
  count_.work_requests.fetch_add(posted, std::memory_order_relaxed);

  // A rail that cannot wake its reader lets the control channel do it, when a pause is over.
  if (taken != 0 && !peer.local) {
    if (rail_->wait_fd() < 0 && now_ - peer.last_post > kAsleepAfter) control_->ring(peer.control);
    peer.last_post = now_;
  }
  peer.writes.remove(slots_, index);
  const bool waits =
      slot.plan.finished() && (!slot.immediate || slot.immediate_posted || slot.outstanding != 0);
  if (!waits) peer.writes.push_back(slots_, index);
  return taken != 0;
}

bool EngineCore::send_messages(std::uint32_t peer_index) {
  Peer& peer = peers_[peer_index];
  if (peer.state != Peer::State::open) return false;
  bool any = false;
  while (!peer.messages.empty() && peer.unacknowledged < peer.message_slots) {
    const std::uint32_t index = peer.messages.front();
    TransferSlot& slot = slots_[index];
    if (slot.message.size() > peer.message_bytes) {
      end(index, fail(ErrorCode::out_of_range, "a message of {} bytes is longer than the peer's limit of {}",
                      slot.message.size(), peer.message_bytes));
      continue;
    }
    const std::uint64_t id = std::uint64_t{slot.generation} << 32 | index;
    if (!peer.local && !control_->send_message(peer.control, id, slot.message)) break;
    peer.messages.remove(slots_, index);
    count_.messages_sent.fetch_add(1, std::memory_order_relaxed);
    any = true;
    if (peer.local) {
      call_message_handler(peer.address, slot.message);
      end(index, {});
      continue;
    }
    slot.outstanding = 1;
    ++outstanding_;
    ++peer.unacknowledged;
  }
  return any;
}

}  // namespace switchyard
