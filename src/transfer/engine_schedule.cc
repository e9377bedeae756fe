// Posting: which transfer has its turn, on which path, in what pieces, and how its arrival is announced.
//
// Transfers of latency go first at every turn, and bulk leaves them room in every window. Peers take turns,
// and so do the transfers of a peer. Each piece goes to the path that would have delivered it first, by its
// measured speed and what it already has to do.
#include <algorithm>
#include <cstring>

#include "transfer/engine_core.h"

namespace switchyard {

using transfer::arrival_immediate;
using transfer::ArrivalKind;
using transfer::ArrivalRecord;
using transfer::BatchArrays;
using transfer::kBatch;
using transfer::kMixedPaths;
using transfer::kNoIndex;
using transfer::Path;
using transfer::Peer;
using transfer::Run;
using transfer::TransferSlot;
using transfer::WorkRequest;

namespace {

constexpr std::uint64_t kTurnBytes = 1u << 20;         // of one turn of one transfer, more or less
constexpr std::uint64_t kSharedTurnBytes = 64u << 10;  // where several paths share the work
constexpr std::uint64_t kStepBytes = 4u << 20;         // posted between two looks at completions and sockets
constexpr std::uint64_t kBulkBytes = 4u << 20;         // of bulk under way on one path
constexpr std::uint64_t kSmallestChunk = 64u << 10;    // of a long run that is split over paths
constexpr std::uint64_t kLargestChunk = 1u << 20;
constexpr Nanos kRingInterval = std::chrono::microseconds(250);  // shorter than the attention that it earns

// Writes that may be under way on one path, and on all of a rail: bulk leaves room for what is urgent.
struct Limits {
  std::uint32_t path, rail;
};
Limits limits_of(const fabric::Capabilities& rail, Priority priority) {
  const Limits all{rail.window, rail.max_outstanding};
  return priority == Priority::latency ? all : Limits{all.path - all.path / 8, all.rail - all.rail / 8};
}

}  // namespace

// Requests of one transfer for one path, as they go to its rail.
struct EngineCore::Batch {
  Peer& peer;
  std::uint32_t path_index;
  Path& path;
  const fabric::Capabilities& capabilities;
  std::size_t room;
  std::size_t count = 0;
  std::uint64_t bytes = 0;
  // By request; the engine keeps them, since clearing them at each turn would cost more than the turn.
  decltype(BatchArrays::requests)& requests;
  decltype(BatchArrays::indices)& indices;      // of the work requests
  decltype(BatchArrays::counts)& counts;        // carries the immediate that completes the arrival
  decltype(BatchArrays::positions)& positions;  // of the plan, before a request was taken from it
  decltype(BatchArrays::from_plan)& from_plan;
};

std::uint32_t EngineCore::take_request(bool again) {
  if (free_requests_.size() <= (again ? 0 : kSpareRequests)) return kNoIndex;
  const std::uint32_t index = free_requests_.back();
  free_requests_.pop_back();
  return index;
}

void EngineCore::free_request(std::uint32_t index) {
  WorkRequest& request = requests_[index];
  const std::uint32_t generation = request.generation + 1;
  request = WorkRequest{};
  request.generation = generation == 0 ? 1 : generation;
  free_requests_.push_back(index);
}

void EngineCore::want_posting(std::uint32_t peer_index) {
  if (!peers_[peer_index].link.listed) busy_peers_.push_back(peers_, peer_index);
}

// Gives a transfer that has something to post its place in the queue.
void EngineCore::queue(std::uint32_t index) {
  TransferSlot& slot = slots_[index];
  if (!slot.link.listed)
    peers_[slot.peer].writes[static_cast<std::size_t>(slot.priority)].push_back(slots_, index);
  want_posting(slot.peer);
}

bool EngineCore::schedule() {
  bool any = false;
  starved_ = false;
  std::uint64_t posted = 0;
  auto written = [&] {
    std::uint64_t sum = 0;
    for (const transfer::EngineRail& rail : rails_) sum += rail.bytes_written.get();
    return sum;
  };
  const std::uint64_t before = busy_peers_.empty() ? 0 : written();
  for (bool progress = true; progress && posted < kStepBytes;) {
    progress = false;
    // What is urgent first; then one turn for each peer that has something to post.
    for (std::uint32_t index = busy_peers_.front(); index != kNoIndex;) {
      const std::uint32_t next = peers_[index].link.next;
      progress |= send_messages(index);
      while (post_some(index, Priority::latency)) progress = true;
      index = next;
    }
    for (std::uint32_t index = busy_peers_.front(); index != kNoIndex;) {
      const std::uint32_t next = peers_[index].link.next;
      progress |= post_some(index, Priority::bulk);
      if (!peers_[index].wants_posting()) busy_peers_.remove(peers_, index);
      index = next;
    }
    any |= progress;
    if (progress) {
      posted = written() - before;
      poll_rails();
    }
  }
  return any;
}

bool EngineCore::has_room(const Path& path, Priority priority) const {
  const transfer::EngineRail& rail = rails_[path.local];
  if (priority == Priority::bulk && path.outstanding_bytes.get() >= kBulkBytes) return false;
  const Limits limits = limits_of(rail.rail->capabilities(), priority);
  return path.outstanding.get() < limits.path && rail.outstanding.get() < limits.rail;
}

// The path that would have delivered so many bytes first. Paths that are about equal take turns.
std::uint32_t EngineCore::choose_path(Peer& peer, Priority priority, std::uint64_t bytes) const {
  constexpr double kClearlyFaster = 7.0 / 8;
  const auto count = static_cast<std::uint32_t>(peer.paths.size());
  const std::uint32_t first = peer.turn++ % count;
  std::uint32_t best = kNoIndex;
  double best_time = 0;
  for (std::uint32_t i = first; i < first + count; ++i) {
    const Path& path = peer.paths[i % count];
    if (path.state != Path::State::up || !has_room(path, priority)) continue;
    if (peer.local_path_up && !rails_[path.local].rail->capabilities().local) continue;
    const double rate = path.rate > 0 ? path.rate : path.line;
    const double time = static_cast<double>(path.outstanding_bytes.get() + bytes) / rate;
    if (best != kNoIndex && time >= best_time * kClearlyFaster) continue;
    best = i % count;
    best_time = time;
  }
  return best;
}

// Data: what broken paths have given back, then what the plan still has.
void EngineCore::add_data(Batch& batch, TransferSlot& slot, std::uint32_t slot_index) {
  const std::uint32_t shares = batch.peer.paths_up;
  std::uint64_t limit = batch.capabilities.max_write_bytes;
  if (shares > 1) {
    const std::uint64_t share = (slot.plan.bytes() / (4 * shares) + 4095) & ~std::uint64_t{4095};
    limit = std::min(limit, std::clamp(share, kSmallestChunk, kLargestChunk));
  }
  const std::uint64_t turn = shares > 1 ? std::max(limit, kSharedTurnBytes) : kTurnBytes;
  while (batch.count < batch.room && batch.bytes < turn) {
    std::uint32_t index = slot.again.front();
    const bool from_plan = index == kNoIndex;
    if (from_plan) {
      if (slot.plan.finished()) return;
      index = take_request();
      if (index == kNoIndex) return;
      batch.positions[batch.count] = slot.plan.position();
      requests_[index].run = slot.plan.peek(limit);
      slot.plan.take(requests_[index].run);
    } else {
      // Another rail may take less at a time.
      if (requests_[index].run.bytes > limit && !split(index, slot, limit)) return;
      slot.again.remove(requests_, index);
    }
    WorkRequest& request = requests_[index];
    request.kind = WorkRequest::Kind::data;
    request.slot = slot_index;
    const RegionKey::Rail& target = slot.target[batch.path.remote];
    batch.requests[batch.count] = {.source = slot.source.base() + request.run.source_offset,
                                   .source_memory = slot.source.state()->memories[batch.path.local].get(),
                                   .bytes = request.run.bytes,
                                   .target_address = target.address + request.run.target_offset,
                                   .target_key = target.key,
                                   .cookie = std::uint64_t{request.generation} << 32 | index};
    batch.indices[batch.count] = index;
    batch.counts[batch.count] = false;
    batch.from_plan[batch.count] = from_plan;
    ++batch.count;
    batch.bytes += request.run.bytes;
  }
}

// Cuts a request that waits to be posted again after `limit` bytes; the rest waits behind it.
bool EngineCore::split(std::uint32_t index, TransferSlot& slot, std::uint64_t limit) {
  const std::uint32_t rest = take_request(true);
  if (rest == kNoIndex) return false;
  WorkRequest& request = requests_[index];
  requests_[rest].state = WorkRequest::State::again;
  requests_[rest].attempts = request.attempts;
  requests_[rest].slot = request.slot;
  requests_[rest].run = {request.run.source_offset + limit, request.run.target_offset + limit,
                         request.run.bytes - limit};
  request.run.bytes = limit;
  slot.again.push_back(requests_, rest);
  return true;
}

// The arrival, once nothing else is left to post. False: it has to wait (for a number, a request, or until
// what is under way has been delivered).
bool EngineCore::add_arrival(Batch& batch, TransferSlot& slot, std::uint32_t slot_index) {
  Peer& peer = batch.peer;
  const bool nothing_elsewhere = slot.outstanding == 0 || slot.sole_path == batch.path_index;
  const bool rides = batch.capabilities.ordered && nothing_elsewhere && batch.count != 0;
  // Only the first time: an immediate of an earlier attempt may have arrived, and would count data that is
  // under way again.
  const bool beside = !rides && batch.count == 1 && slot.outstanding == 0 && !slot.number;
  const bool follows = !rides && !beside && batch.count == 0 &&
                       (slot.outstanding == 0 || (batch.capabilities.ordered && nothing_elsewhere));
  if (!rides && !beside && !follows) return false;
  if (!slot.number) {
    if (!peer.numbers.has_room()) return false;
    slot.number = peer.numbers.take();
  }
  const std::uint32_t index = take_request();
  if (index == kNoIndex) return false;
  const std::uint32_t number = *slot.number;
  const auto needs = rides    ? static_cast<std::uint32_t>(ArrivalKind::data)
                     : beside ? static_cast<std::uint32_t>(ArrivalKind::data) |
                                    static_cast<std::uint32_t>(ArrivalKind::record)
                              : static_cast<std::uint32_t>(ArrivalKind::record);
  const std::size_t place =
      (slot.peer * std::size_t{transfer::kArrivalWindow} + number % transfer::kArrivalWindow) *
      sizeof(ArrivalRecord);
  std::byte* const source = log_memory_.base() + log_memory_.bytes() / 2 + place;
  const ArrivalRecord record{.session = peer.introduction.session,
                             .number = needs << 30 | (number & transfer::kArrivalNumberMask),
                             .slot = slot.counter->slot,
                             .generation = slot.counter->generation};
  std::memcpy(source, &record, sizeof record);
  const RegionKey::Rail& log = peer.introduction.log[batch.path.remote];
  fabric::WriteRequest write{.source = source,
                             .source_memory = log_region_.state()->memories[batch.path.local].get(),
                             .bytes = sizeof record,
                             .target_address = log.address + peer.introduction.log_offset +
                                               number % transfer::kArrivalWindow * sizeof(ArrivalRecord),
                             .target_key = log.key,
                             .cookie = std::uint64_t{requests_[index].generation} << 32 | index};
  if (!rides) {
    write.has_immediate = true;
    write.immediate = arrival_immediate(peer.introduction.peer_index, ArrivalKind::record, number);
  }
  if (!follows) {
    fabric::WriteRequest& last = batch.requests[batch.count - 1];
    last.has_immediate = true;
    last.immediate = arrival_immediate(peer.introduction.peer_index, ArrivalKind::data, number);
  }
  requests_[index].kind = WorkRequest::Kind::record;
  requests_[index].slot = slot_index;
  requests_[index].run = {0, 0, sizeof record};
  // In order, the record goes before the write that announces it.
  std::size_t at = batch.count;
  if (rides) {
    --at;
    batch.requests[at + 1] = batch.requests[at];
    batch.indices[at + 1] = batch.indices[at];
    batch.positions[at + 1] = batch.positions[at];
    batch.from_plan[at + 1] = batch.from_plan[at];
  }
  batch.requests[at] = write;
  batch.indices[at] = index;
  batch.from_plan[at] = false;
  ++batch.count;
  for (std::size_t i = 0; i < batch.count; ++i) batch.counts[i] = i + 1 == batch.count;
  return true;
}

// What the rail does not take goes back to where it came from.
bool EngineCore::post_batch(Batch& batch, TransferSlot& slot) {
  Path& path = batch.path;
  transfer::EngineRail& rail = rails_[path.local];
  const std::size_t taken = rail.rail->post(path.end, std::span(batch.requests.data(), batch.count));
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < taken; ++i) {
    WorkRequest& request = requests_[batch.indices[i]];
    request.state = WorkRequest::State::posted;
    request.completed = false;
    request.peer = slot.peer;
    request.path = batch.path_index;
    path.requests.push_back(requests_, batch.indices[i]);
    bytes += request.run.bytes;
    if (request.kind == WorkRequest::Kind::data && !batch.from_plan[i]) count_.sent_again.add(1);
    slot.arrival_posted |= batch.counts[i];
  }
  bool rewound = false;
  for (std::size_t i = taken; i < batch.count; ++i) {
    WorkRequest& request = requests_[batch.indices[i]];
    if (request.kind == WorkRequest::Kind::record) {
      free_request(batch.indices[i]);
    } else if (batch.from_plan[i]) {
      if (!rewound) slot.plan.seek(batch.positions[i]);
      rewound = true;
      free_request(batch.indices[i]);
    } else {
      request.state = WorkRequest::State::again;
      slot.again.push_back(requests_, batch.indices[i]);
    }
  }
  if (taken < batch.count) {
    starved_ = true;
    rail.retries.add(1);
  }
  if (taken == 0) return false;
  const auto posted = static_cast<std::uint32_t>(taken);
  if (slot.outstanding == 0) {
    slot.sole_path = batch.path_index;
  } else if (slot.sole_path != batch.path_index) {
    slot.sole_path = kMixedPaths;
  }
  if (path.outstanding.get() == 0) {
    path.last_progress = path.mark = now_;
    path.marked_bytes = 0;
  }
  slot.outstanding += posted;
  outstanding_ += posted;
  path.outstanding.add(posted);
  path.outstanding_bytes.add(bytes);
  path.bytes_written.add(bytes);
  path.work_requests.add(posted);
  rail.outstanding.add(posted);
  rail.bytes_written.add(bytes);
  rail.work_requests.add(posted);
  arm_check(slot.peer, now_ + options_.stall_limit / 4);
  if (need_asking_ && rail.rail->wait_fd() < 0) keep_awake(batch.peer);
  return true;
}

// One turn of the peer's first transfer of this priority, which then goes to the end of the queue.
bool EngineCore::post_some(std::uint32_t peer_index, Priority priority) {
  Peer& peer = peers_[peer_index];
  transfer::IndexList& writes = peer.writes[static_cast<std::size_t>(priority)];
  if (writes.empty() || peer.state != Peer::State::open || peer.paths_up == 0) return false;
  std::uint32_t index = writes.front();
  // When broken paths have given back so much that no request is free, that goes first: it frees them.
  if (free_requests_.size() <= kSpareRequests) {
    while (index != kNoIndex && slots_[index].again.empty()) index = slots_[index].link.next;
    if (index == kNoIndex) index = writes.front();
  }
  TransferSlot& slot = slots_[index];
  const bool has_data = !slot.again.empty() || !slot.plan.finished();
  const bool wants_arrival = slot.counter && !slot.arrival_posted;
  if (!has_data && !wants_arrival) {
    // Nothing to do (a connect, an empty write), or everything is under way.
    if (slot.outstanding == 0) {
      end(index, {});
    } else {
      writes.remove(slots_, index);
    }
    return true;
  }
  const std::uint32_t path_index = choose_path(
      peer, priority, has_data ? std::min(slot.plan.bytes(), kSharedTurnBytes) : sizeof(ArrivalRecord));
  if (path_index == kNoIndex) return false;
  Path& path = peer.paths[path_index];
  if (has_data && path.remote >= slot.target.size()) {
    end(index, fail(ErrorCode::invalid, "the region's key does not fit the rails that its peer has shown"));
    return true;
  }
  const transfer::EngineRail& rail = rails_[path.local];
  const auto& capabilities = rail.rail->capabilities();
  const Limits limits = limits_of(capabilities, priority);
  Batch batch{.peer = peer,
              .path_index = path_index,
              .path = path,
              .capabilities = capabilities,
              .room = std::min<std::size_t>(
                  {kBatch - 1, limits.path - path.outstanding.get(), limits.rail - rail.outstanding.get()}),
              .requests = batch_.requests,
              .indices = batch_.indices,
              .counts = batch_.counts,
              .positions = batch_.positions,
              .from_plan = batch_.from_plan};
  add_data(batch, slot, index);
  bool arrival_waits = false;
  if (wants_arrival && slot.again.empty() && slot.plan.finished())
    arrival_waits = !add_arrival(batch, slot, index);
  const bool posted = batch.count != 0 && post_batch(batch, slot);

  // Where it goes now: out, until something of it completes; to the end of the queue; or it stays in front.
  const bool data_left = !slot.again.empty() || !slot.plan.finished();
  const bool arrival_left = slot.counter && !slot.arrival_posted;
  if (!data_left && (!arrival_left || (arrival_waits && slot.outstanding != 0))) {
    writes.remove(slots_, index);
  } else if (posted) {
    writes.remove(slots_, index);
    writes.push_back(slots_, index);
  }
  return posted;
}

// A rail that cannot wake its reader lets the control channel do it, and keep it awake while writes are under
// way: what is not looked at there does not move.
void EngineCore::keep_awake(Peer& peer) {
  if (peer.local || now_ - peer.last_ring < kRingInterval) return;
  control_->ring(peer.control);
  peer.last_ring = now_;
}

void EngineCore::keep_all_awake() {
  if (now_ - last_keep_awake_ < kRingInterval) return;
  last_keep_awake_ = now_;
  for (Peer& peer : peers_) {
    const auto waits = [&](const Path& path) {
      return (path.outstanding.get() != 0 || path.probe != kNoIndex) &&
             rails_[path.local].rail->wait_fd() < 0;
    };
    // Only open ones have paths; the state of others is not the worker's alone.
    if (std::any_of(peer.paths.begin(), peer.paths.end(), waits)) keep_awake(peer);
  }
}

bool EngineCore::send_messages(std::uint32_t peer_index) {
  Peer& peer = peers_[peer_index];
  if (peer.state != Peer::State::open) return false;
  bool any = false;
  const std::uint32_t slots = std::clamp(peer.introduction.message_slots, 1u, options_.max_transfers);
  while (!peer.messages.empty() && peer.unacknowledged < slots) {
    const std::uint32_t index = peer.messages.front();
    TransferSlot& slot = slots_[index];
    if (slot.message.size() > peer.introduction.message_bytes) {
      end(index, fail(ErrorCode::out_of_range, "a message of {} bytes is longer than the peer's limit of {}",
                      slot.message.size(), peer.introduction.message_bytes));
      continue;
    }
    const std::uint64_t id = std::uint64_t{slot.generation} << 32 | index;
    if (!peer.local && !control_->send_message(peer.control, id, slot.message)) break;
    peer.messages.remove(slots_, index);
    count_.messages_sent.add(1);
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
