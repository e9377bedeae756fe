// Stepping, callbacks, the end of transfers and of the engine.
#include "transfer/engine_core.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <exception>

#include "base/log.h"

namespace switchyard {

using transfer::kNoIndex;
using transfer::Peer;
using transfer::TransferSlot;

namespace {

constexpr Nanos kControlInterval = std::chrono::microseconds(20);  // between looks at the sockets while busy
constexpr Nanos kAttention = std::chrono::microseconds(500);       // after a word from a peer
constexpr Nanos kHealthInterval = std::chrono::milliseconds(10);   // and at the state of ports
constexpr Nanos kShutdownLimit = std::chrono::milliseconds(200);   // for what the rails still have

}  // namespace

bool EngineCore::step(TimePoint now) {
  now_ = now;
  bool busy = drain_commands();
  if (now - last_control_ >= kControlInterval) {
    last_control_ = now;
    if (control_->poll(now, *this)) {
      busy = true;
      if (need_asking_) attentive_until_ = now + kAttention;
    }
  }
  if (now - last_health_ >= kHealthInterval) {
    last_health_ = now;
    check_health();
  }
  busy |= poll_rails();
  busy |= schedule();
  if (need_asking_ && outstanding_ != 0) keep_all_awake();
  busy |= fire_deadlines();
  busy |= take_counters();
  busy |= look_at_watches();
  busy |= run_callbacks();
  if (stopping_.load(std::memory_order_relaxed) && !shutting_down_) begin_shutdown();
  if (shutting_down_ && (outstanding_ == 0 || now >= shutdown_deadline_)) finish_shutdown();
  return busy;
}

TimePoint EngineCore::next_deadline() const {
  return shutting_down_ ? std::min(shutdown_deadline_, deadlines_.next())
                        : std::min(deadlines_.next(), control_->next_deadline());
}

bool EngineCore::prepare_sleep() {
  sleeping_.store(true);
  if (!pending_.load()) return true;
  sleeping_.store(false);
  return false;
}

void EngineCore::woken() {
  sleeping_.store(false);
  last_control_ = {};
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_fd_, &count, sizeof count);
}

bool EngineCore::drain_commands() {
  if (!pending_.load(std::memory_order_relaxed)) return false;
  std::vector<std::function<void()>> late;
  {
    std::lock_guard lock(mutex_);
    pending_.store(false);
    std::swap(commands_, taken_commands_);
    std::swap(tasks_, taken_tasks_);
    std::swap(late_drained_, late);
  }
  for (const Command& command : taken_commands_) {
    TransferSlot& slot = slots_[command.slot];
    // A slot that was released has another generation.
    if (slot.generation != command.generation) continue;
    if (command.kind == Command::Kind::start) {
      start(command.slot);
    } else {
      end(command.slot, fail(ErrorCode::cancelled, "the transfer was cancelled"));
    }
  }
  taken_commands_.clear();
  for (auto& task : taken_tasks_) due_.push_back({.plain = std::move(task)});
  taken_tasks_.clear();
  for (auto& drained : late) due_.push_back({.plain = std::move(drained)});
  return true;
}

void EngineCore::start(std::uint32_t index) {
  TransferSlot& slot = slots_[index];
  slot.started = true;
  slot.began = now_;
  if (slot.kind != TransferSlot::Kind::group) {
    if (shutting_down_) return end(index, fail(ErrorCode::cancelled, "the engine is closing"));
    if (peers_[slot.peer].generation != slot.peer_generation)
      return end(index, fail(ErrorCode::peer_lost, "the peer is gone"));
  }
  if (slot.deadline != TimePoint::max()) deadlines_.set(index, slot.deadline);
  if (slot.kind == TransferSlot::Kind::group) {
    // Its members have been started before it, and may have ended.
    if (slot.unended == 0) end(index, std::move(slot.outcome));
    return;
  }
  Peer& peer = peers_[slot.peer];
  if (slot.kind == TransferSlot::Kind::message) {
    peer.messages.push_back(slots_, index);
  } else {
    peer.writes[static_cast<std::size_t>(slot.priority)].push_back(slots_, index);
  }
  if (peer.state == Peer::State::fresh) dial(slot.peer);
  // dial() may have lost the peer, and with it this transfer.
  if (slot.started && peer.state == Peer::State::open) want_posting(slot.peer);
}

// The transfer's Done. What is still outstanding keeps the slot.
void EngineCore::end(std::uint32_t index, Status status) {
  TransferSlot& slot = slots_[index];
  if (slot.ended) return;
  slot.ended = true;
  deadlines_.remove(index);
  OperationCount& operation = operations_[static_cast<std::size_t>(slot.kind)];
  if (status) {
    const auto took = static_cast<std::uint64_t>(std::max<std::int64_t>((now_ - slot.began).count(), 0));
    operation.count.add(1);
    operation.bytes.add(slot.bytes);
    operation.nanoseconds.add(took);
    operation.log2[std::min<std::size_t>(std::bit_width(took), operation.log2.size() - 1)].add(1);
  } else {
    operation.failed.add(1);
  }
  if (slot.kind == TransferSlot::Kind::group) return end_group(index, std::move(status));
  Peer& peer = peers_[slot.peer];
  if (peer.generation == slot.peer_generation) {
    (slot.kind == TransferSlot::Kind::message ? peer.messages
                                              : peer.writes[static_cast<std::size_t>(slot.priority)])
        .remove(slots_, index);
  }
  while (!slot.again.empty()) {
    const std::uint32_t request = slot.again.front();
    slot.again.remove(requests_, request);
    free_request(request);
  }
  if (slot.group != kNoIndex) {
    TransferSlot& group = slots_[slot.group];
    if (!status && group.outcome) group.outcome = status;
    if (--group.unended == 0 && group.started) end(slot.group, group.outcome);
  } else {
    (status ? count_.done : count_.failed).add(1);
    if (slot.done) due_.push_back({.done = std::exchange(slot.done, {}), .status = std::move(status)});
  }
  if (slot.outstanding == 0) release(index);
}

// A group that ends before its members takes them along.
void EngineCore::end_group(std::uint32_t index, Status status) {
  TransferSlot& group = slots_[index];
  (status ? count_.done : count_.failed).add(1);
  if (group.done) due_.push_back({.done = std::exchange(group.done, {}), .status = std::move(status)});
  // Held until all members have been seen: the last one's release would free it.
  ++group.outstanding;
  for (const auto& [member, generation] : group.members) {
    // A member that was released has another generation.
    if (slots_[member].generation == generation)
      end(member, fail(ErrorCode::cancelled, "the scatter that it belongs to has ended"));
  }
  if (--group.outstanding == 0) release(index);
}

void EngineCore::release(std::uint32_t index) {
  TransferSlot& slot = slots_[index];
  if (slot.number && peers_[slot.peer].generation == slot.peer_generation)
    peers_[slot.peer].numbers.end(*slot.number, slot.arrival_posted);
  const std::uint32_t group = std::exchange(slot.group, kNoIndex);
  slot.plan = {};
  slot.source = {};
  slot.target.clear();
  slot.message.clear();
  if (slot.message.capacity() > 4096) slot.message = {};
  slot.counter.reset();
  slot.number.reset();
  slot.outcome = {};
  slot.members.clear();
  slot.unended = 0;
  slot.arrival_posted = slot.ended = slot.started = false;
  {
    std::lock_guard lock(mutex_);
    for (auto& drained : slot.drained) due_.push_back({.plain = std::move(drained)});
    slot.drained.clear();
    slot.cancel_queued = false;
    slot.used = false;
    ++slot.generation;
    if (slot.generation == 0) slot.generation = 1;
    free_slots_.push_back(index);
  }
  if (group == kNoIndex) return;
  TransferSlot& owner = slots_[group];
  if (--owner.outstanding == 0 && owner.ended) release(group);
}

bool EngineCore::fire_deadlines() {
  bool any = false;
  for (std::uint32_t id; (id = deadlines_.take_due(now_)) != kNoIndex; any = true) {
    if (id < options_.max_transfers) {
      end(id, fail(ErrorCode::timed_out, "the transfer was not complete at its deadline"));
    } else if (id < options_.max_transfers + options_.max_counters) {
      counters_->time_out(id - options_.max_transfers, now_);
    } else {
      const std::uint32_t peer = id - options_.max_transfers - options_.max_counters;
      if (peers_[peer].state == Peer::State::open) {
        check_paths(peer);
      } else {
        dial(peer);
      }
    }
  }
  return any;
}

bool EngineCore::take_counters() {
  if (!counters_->has_fired()) return false;
  counters_->take_fired(fired_);
  for (auto& [done, status] : fired_) due_.push_back({.done = std::move(done), .status = std::move(status)});
  fired_.clear();
  counters_->take_touched(touched_);
  for (const auto& [slot, when] : touched_) deadlines_.set(counter_deadline(slot), when);
  touched_.clear();
  return true;
}

void EngineCore::erase_ended_watches() {
  std::erase_if(watches_, [](const auto& entry) {
    std::lock_guard hold(entry->mutex);
    return entry->word == nullptr;
  });
}

bool EngineCore::look_at_watches() {
  if (!has_watches()) return false;
  {
    std::lock_guard lock(mutex_);
    erase_ended_watches();
    watched_ = watches_;
    watching_.store(!watches_.empty(), std::memory_order_relaxed);
  }
  bool any = false;
  for (const auto& entry : watched_) {
    std::uint64_t before = 0, now = 0;
    {
      std::lock_guard hold(entry->mutex);
      if (entry->word == nullptr) continue;
      now = __atomic_load_n(entry->word, __ATOMIC_ACQUIRE);
      before = std::exchange(entry->last, now);
    }
    if (now == before) continue;
    any = true;
    due_.push_back({.plain = [entry, before, now] {
      {
        std::lock_guard hold(entry->mutex);
        if (entry->word == nullptr) return;
      }
      entry->handler(before, now);
    }});
  }
  watched_.clear();
  return any;
}

bool EngineCore::run_callbacks() {
  if (due_.empty()) return false;
  std::swap(due_, running_);
  for (Due& due : running_) {
    try {
      if (due.done) due.done(due.status);
      if (due.plain) due.plain();
    } catch (const std::exception& error) {
      log::error("engine '{}': a callback threw: {}", options_.name, error.what());
    } catch (...) {
      log::error("engine '{}': a callback threw", options_.name);
    }
  }
  running_.clear();
  return true;
}

void EngineCore::begin_shutdown() {
  shutting_down_ = true;
  shutdown_deadline_ = now_ + kShutdownLimit;
  const Error why{ErrorCode::cancelled, fmt::format("engine '{}' was closed", options_.name)};
  {
    std::lock_guard lock(mutex_);
    closed_ = why;
  }
  drain_commands();
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].started && slots_[i].group == kNoIndex) end(i, pass(why));
  }
  counters_->close(why);
  take_counters();
  for (Peer& peer : peers_) {
    for (transfer::Path& path : peer.paths) drop_probe(path);
    if (peer.control != transfer::kNoLink) control_->close(peer.control, "its engine was closed");
    peer.control = transfer::kNoLink;
  }
  run_callbacks();
}

void EngineCore::finish_shutdown() {
  if (finished_) return;
  // After this the rails touch no memory: what had not drained has now.
  for (transfer::EngineRail& rail : rails_) rail.rail->close();
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    TransferSlot& slot = slots_[i];
    if (!slot.started || slot.kind == TransferSlot::Kind::group || slot.outstanding == 0) continue;
    slot.outstanding = 0;
    release(i);
  }
  outstanding_ = 0;
  {
    std::lock_guard lock(mutex_);
    finished_ = true;
    pending_.store(true);
  }
  drain_commands();
  take_counters();
  while (run_callbacks()) {
  }
}

}  // namespace switchyard
