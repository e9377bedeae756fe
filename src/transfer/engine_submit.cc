// What any thread may call. One short lock per call; nothing here waits for the worker.
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "transfer/engine_core.h"
#include "transfer/worker.h"

namespace switchyard {

using transfer::CounterTable;
using transfer::Peer;
using transfer::TransferSlot;
using transfer::WritePlan;

namespace {

constexpr std::uint32_t kNoPeer = transfer::kNoIndex;
constexpr std::size_t kMaxTasks = 4096;
constexpr std::size_t kMaxWatches = 1024;

}  // namespace

void EngineCore::wake() {
  pending_.store(true);
  // Sequentially consistent against prepare_sleep(): either it sees `pending_`, or we see it asleep.
  if (sleeping_.load() && sleeping_.exchange(false)) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
  }
}

void EngineCore::start_worker() {
  worker_ = std::thread([self = shared_from_this()] { transfer::run_worker(self); });
}

void EngineCore::stop_worker() {
  stopping_.store(true);
  wake();
  if (!worker_.joinable()) return;
  if (worker_.get_id() == std::this_thread::get_id()) {
    worker_.detach();
  } else {
    worker_.join();
  }
}

Result<Region> EngineCore::register_region(const fabric::MemoryRange& range) {
  if (range.base == nullptr || range.bytes == 0)
    return fail(ErrorCode::invalid, "register_region: an empty region");
  {
    std::lock_guard lock(mutex_);
    if (closed_) return pass(*closed_);
  }
  auto state = std::make_shared<Region::State>();
  state->engine = weak_from_this();
  state->base = static_cast<std::byte*>(range.base);
  state->bytes = range.bytes;
  state->key = RegionKey{self_.engine_id, self_.epoch, range.bytes, {}};
  for (const transfer::EngineRail& rail : rails_) {
    auto memory = rail.rail->register_memory(range);
    if (!memory) return pass(memory.error());
    state->key.rails.push_back({(*memory)->remote_address(), (*memory)->remote_key()});
    state->memories.push_back(std::move(*memory));
  }
  return Region(std::move(state));
}

Result<Counter> EngineCore::make_counter() {
  auto name = counters_->make();
  if (!name) return pass(name.error());
  auto state = std::make_shared<Counter::State>();
  state->table = counters_;
  state->name = *name;
  state->epoch = self_.epoch;
  state->engine = weak_from_this();
  return Counter(std::move(state));
}

Status EngineCore::check_source(const Region& source, std::uint64_t bytes) const {
  if (bytes == 0) return {};
  if (!source) return fail(ErrorCode::invalid, "write: no source region");
  if (source.state()->engine.lock().get() != this) {
    return fail(ErrorCode::invalid, "write: the source region belongs to another engine");
  }
  return {};
}

Status EngineCore::check_target(const PeerAddress& peer, const RegionKey& target,
                                const std::optional<CounterId>& counter) const {
  if (target.engine_id != peer.engine_id || target.epoch != peer.epoch) {
    return fail(ErrorCode::denied,
                "write: the region key is not of this peer's engine and epoch; ask for a new one");
  }
  if (target.rails.size() != peer.rails.size()) {
    return fail(ErrorCode::invalid, "write: the region key has {} rails, its peer {}", target.rails.size(),
                peer.rails.size());
  }
  return counter ? check_counter(peer, *counter) : Status{};
}

Status EngineCore::check_counter(const PeerAddress& peer, const CounterId& counter) const {
  if (counter.epoch != peer.epoch) {
    return fail(ErrorCode::denied, "write: the counter is not of this peer's epoch; ask for a new one");
  }
  if (counter.slot >= CounterTable::kMaxSlots || counter.generation > 0xffff)
    return fail(ErrorCode::invalid, "write: not a counter's name");
  return {};
}

Result<std::uint32_t> EngineCore::peer_for(const PeerAddress& address, bool again) {
  if (closed_) return pass(*closed_);
  if (auto known = directory_.find(address.engine_id); known != directory_.end()) {
    if (peers_[known->second].address.epoch != address.epoch) {
      return fail(ErrorCode::denied, "the peer at {}:{} has another epoch than this address",
                  address.control_host, address.control_port);
    }
    return known->second;
  }
  if (address.engine_id == self_.engine_id && address.epoch != self_.epoch) {
    return fail(ErrorCode::denied, "the address belongs to an earlier life of this engine, of another epoch");
  }
  const auto gone = std::find(gone_.begin(), gone_.end(), std::pair(address.engine_id, address.epoch));
  if (gone != gone_.end()) {
    if (!again) {
      return fail(ErrorCode::peer_lost, "the peer at {}:{} is gone", address.control_host,
                  address.control_port);
    }
    gone_.erase(gone);
  }
  if (address.control_port == 0 || address.rails.empty())
    return fail(ErrorCode::invalid, "not a peer's address");
  if (free_peers_.empty()) return fail(ErrorCode::exhausted, "{} peers are the limit", options_.max_peers);
  // Nothing would ever end a peer that has no transfer.
  if (free_slots_.empty()) return fail_without_slots();
  const std::uint32_t index = free_peers_.front();
  free_peers_.pop_front();
  peers_[index].address = address;
  peers_[index].state = Peer::State::fresh;
  directory_.emplace(address.engine_id, index);
  return index;
}

tl::unexpected<Error> EngineCore::fail_without_slots() const {
  return fail(ErrorCode::exhausted, "{} transfers are under way, the limit; wait for some to end",
              options_.max_transfers);
}

Result<std::uint32_t> EngineCore::take_slot(TransferSlot::Kind kind, std::uint32_t peer, Done done,
                                            TimePoint deadline) {
  if (free_slots_.empty()) return fail_without_slots();
  const std::uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  TransferSlot& slot = slots_[index];
  slot.used = true;
  slot.kind = kind;
  slot.peer = peer;
  slot.peer_generation = peer == kNoPeer ? 0 : peers_[peer].generation;
  slot.done = std::move(done);
  slot.deadline = deadline;
  slot.bytes = 0;
  slot.priority = Priority::bulk;
  return index;
}

Transfer EngineCore::enqueue(std::uint32_t index) {
  const std::uint32_t generation = slots_[index].generation;
  commands_.push_back({Command::Kind::start, index, generation});
  count_.submitted.fetch_add(1, std::memory_order_relaxed);
  return Transfer(weak_from_this(), std::uint64_t{generation} << 32 | index);
}

Result<Transfer> EngineCore::submit_write(WritePlan plan, Region source, const PeerAddress& peer,
                                          RegionKey target, const SubmitOptions& options, Done done) {
  if (auto ok = check_source(source, plan.bytes()); !ok) return pass(ok.error());
  if (auto ok = check_target(peer, target, options.counter); !ok) return pass(ok.error());
  Transfer transfer;
  {
    std::lock_guard lock(mutex_);
    auto index = peer_for(peer, false);
    if (!index) return pass(index.error());
    auto taken = take_slot(TransferSlot::Kind::write, *index, std::move(done), options.deadline);
    if (!taken) return pass(taken.error());
    TransferSlot& slot = slots_[*taken];
    slot.bytes = plan.bytes();
    slot.plan = std::move(plan);
    slot.source = std::move(source);
    slot.target = std::move(target.rails);
    slot.counter = options.counter;
    slot.priority = options.priority;
    transfer = enqueue(*taken);
  }
  wake();
  return transfer;
}

Result<Transfer> EngineCore::write(Write write, Done done) {
  auto plan = WritePlan::of(write);
  if (!plan) return pass(plan.error());
  return submit_write(std::move(*plan), std::move(write.source), write.peer, std::move(write.target),
                      write.options, std::move(done));
}

Result<Transfer> EngineCore::write_pages(PagedWrite write, Done done) {
  auto plan = WritePlan::of(write);
  if (!plan) return pass(plan.error());
  return submit_write(std::move(*plan), std::move(write.source), write.peer, std::move(write.target),
                      write.options, std::move(done));
}

Result<Transfer> EngineCore::signal(const Signal& signal, Done done) {
  if (auto ok = check_counter(signal.peer, signal.counter); !ok) return pass(ok.error());
  Transfer transfer;
  {
    std::lock_guard lock(mutex_);
    auto index = peer_for(signal.peer, false);
    if (!index) return pass(index.error());
    auto taken = take_slot(TransferSlot::Kind::write, *index, std::move(done), signal.deadline);
    if (!taken) return pass(taken.error());
    TransferSlot& slot = slots_[*taken];
    slot.counter = signal.counter;
    slot.priority = signal.priority;
    transfer = enqueue(*taken);
  }
  wake();
  return transfer;
}

Result<Transfer> EngineCore::scatter(Scatter scatter, Done done) {
  const auto members = scatter.group.members();
  if (scatter.slices.size() != members.size()) {
    return fail(ErrorCode::invalid, "scatter: {} slices for a group of {}", scatter.slices.size(),
                members.size());
  }
  // Everything is checked before anything is taken.
  std::vector<std::pair<std::size_t, WritePlan>> plans;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const Scatter::Slice& slice = scatter.slices[i];
    if (slice.bytes == 0 && !slice.counter) continue;
    auto plan = WritePlan::of(Write{.source = scatter.source,
                                    .source_offset = slice.source_offset,
                                    .peer = {},
                                    .target = {.bytes = members[i].target.bytes},
                                    .target_offset = slice.target_offset,
                                    .bytes = slice.bytes});
    if (!plan) return fail_at(fmt::format("slice {}", i), plan.error());
    if (auto ok = check_source(scatter.source, slice.bytes); !ok) return pass(ok.error());
    if (auto ok = check_target(members[i].peer, members[i].target, slice.counter); !ok)
      return fail_at(fmt::format("slice {}", i), ok.error());
    plans.emplace_back(i, std::move(*plan));
  }
  Transfer transfer;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return pass(*closed_);
    if (free_slots_.size() < plans.size() + 1) {
      return fail(ErrorCode::exhausted, "scatter: {} of {} transfers are under way; no room for {} slices",
                  options_.max_transfers - free_slots_.size(), options_.max_transfers, plans.size());
    }
    std::vector<std::uint32_t> peers, made;
    for (const auto& [i, plan] : plans) {
      const std::size_t free_before = free_peers_.size();
      auto index = peer_for(members[i].peer, false);
      if (!index) {
        for (const std::uint32_t peer : made) {
          directory_.erase(peers_[peer].address.engine_id);
          peers_[peer].address = {};
          peers_[peer].state = Peer::State::free;
          free_peers_.push_back(peer);
        }
        return fail_at(fmt::format("slice {}", i), index.error());
      }
      if (free_peers_.size() != free_before) made.push_back(*index);
      peers.push_back(*index);
    }
    const std::uint32_t group =
        *take_slot(TransferSlot::Kind::group, kNoPeer, std::move(done), scatter.deadline);
    for (std::size_t at = 0; at < plans.size(); ++at) {
      auto& [i, plan] = plans[at];
      const std::uint32_t taken = *take_slot(TransferSlot::Kind::write, peers[at], {}, TimePoint::max());
      TransferSlot& slot = slots_[taken];
      slot.group = group;
      slot.bytes = plan.bytes();
      slot.plan = std::move(plan);
      slot.source = scatter.source;
      slot.target = members[i].target.rails;
      slot.counter = scatter.slices[i].counter;
      slot.priority = scatter.priority;
      slots_[group].members.emplace_back(taken, slot.generation);
      slots_[group].bytes += slot.bytes;
      commands_.push_back({Command::Kind::start, taken, slot.generation});
    }
    slots_[group].unended = slots_[group].outstanding = static_cast<std::uint32_t>(plans.size());
    transfer = enqueue(group);
  }
  wake();
  return transfer;
}

Result<Transfer> EngineCore::send(const PeerAddress& peer, std::span<const std::byte> message, Done done,
                                  TimePoint deadline) {
  if (message.size() > options_.message_bytes) {
    return fail(ErrorCode::out_of_range, "a message of {} bytes is longer than {}", message.size(),
                options_.message_bytes);
  }
  Transfer transfer;
  {
    std::lock_guard lock(mutex_);
    auto index = peer_for(peer, false);
    if (!index) return pass(index.error());
    auto taken = take_slot(TransferSlot::Kind::message, *index, std::move(done), deadline);
    if (!taken) return pass(taken.error());
    slots_[*taken].message.assign(message.begin(), message.end());
    slots_[*taken].bytes = message.size();
    transfer = enqueue(*taken);
  }
  wake();
  return transfer;
}

Status EngineCore::connect(const PeerAddress& peer, Done done) {
  {
    std::lock_guard lock(mutex_);
    auto index = peer_for(peer, true);
    if (!index) return pass(index.error());
    auto taken = take_slot(TransferSlot::Kind::connect, *index, std::move(done), TimePoint::max());
    if (!taken) return pass(taken.error());
    enqueue(*taken);
  }
  wake();
  return {};
}

void EngineCore::cancel(std::uint64_t id, std::function<void()> drained) {
  const auto index = static_cast<std::uint32_t>(id);
  const auto generation = static_cast<std::uint32_t>(id >> 32);
  {
    std::lock_guard lock(mutex_);
    TransferSlot& slot = slots_[index];
    if (slot.used && slot.generation == generation && !finished_) {
      if (drained) slot.drained.push_back(std::move(drained));
      if (!slot.cancel_queued) commands_.push_back({Command::Kind::cancel, index, generation});
      slot.cancel_queued = true;
      drained = nullptr;
    } else if (drained && !finished_ && late_drained_.size() < kMaxTasks) {
      // Behind its Done, which may still wait for its turn.
      late_drained_.push_back(std::move(drained));
      drained = nullptr;
    }
  }
  wake();
  // The engine has stopped, or is swamped with cancels: nothing of this transfer can land any more either
  // way.
  if (drained) drained();
}

Status EngineCore::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return pass(*closed_);
    if (tasks_.size() >= kMaxTasks)
      return fail(ErrorCode::exhausted, "{} posted tasks wait, the limit", kMaxTasks);
    tasks_.push_back(std::move(task));
  }
  wake();
  return {};
}

void EngineCore::on_message(MessageHandler handler) {
  std::lock_guard lock(mutex_);
  message_handler_ = handler ? std::make_shared<const MessageHandler>(std::move(handler)) : nullptr;
}

void EngineCore::on_peer_lost(PeerHandler handler) {
  std::lock_guard lock(mutex_);
  peer_handler_ = handler ? std::make_shared<const PeerHandler>(std::move(handler)) : nullptr;
}

Result<Watcher> EngineCore::watch(const std::uint64_t* word, WatchHandler handler) {
  if (word == nullptr || reinterpret_cast<std::uintptr_t>(word) % sizeof *word != 0 || !handler)
    return fail(ErrorCode::invalid, "watch: it takes an 8-byte aligned word and a handler");
  auto entry = std::make_shared<WatchEntry>();
  entry->word = word;
  entry->last = __atomic_load_n(word, __ATOMIC_ACQUIRE);
  entry->handler = std::move(handler);
  {
    std::lock_guard lock(mutex_);
    if (closed_) return pass(*closed_);
    // Those that have ended stand in the list until the worker looks.
    if (watches_.size() >= kMaxWatches) erase_ended_watches();
    if (watches_.size() >= kMaxWatches)
      return fail(ErrorCode::exhausted, "{} watches are the limit", kMaxWatches);
    watches_.push_back(entry);
    watching_.store(true, std::memory_order_relaxed);
  }
  wake();
  auto state = std::make_shared<Watcher::State>();
  state->entry = std::move(entry);
  return Watcher(std::move(state));
}

}  // namespace switchyard
