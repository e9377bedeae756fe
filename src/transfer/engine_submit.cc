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

constexpr std::size_t kMaxTasks = 4096;

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

Result<Region> EngineCore::register_region(void* base, std::size_t bytes) {
  if (base == nullptr || bytes == 0) return fail(ErrorCode::invalid, "register_region: an empty region");
  {
    std::lock_guard lock(mutex_);
    if (closed_) return pass(*closed_);
  }
  auto memory = rail_->register_memory(base, bytes);
  if (!memory) return pass(memory.error());
  auto state = std::make_shared<Region::State>();
  state->engine = weak_from_this();
  state->base = static_cast<std::byte*>(base);
  state->bytes = bytes;
  state->key = RegionKey{
      self_.engine_id, self_.epoch, bytes, {{(*memory)->remote_address(), (*memory)->remote_key()}}};
  state->memory = std::move(*memory);
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
                                const SubmitOptions& options) const {
  if (target.engine_id != peer.engine_id || target.epoch != peer.epoch) {
    return fail(ErrorCode::denied,
                "write: the region key is not of this peer's engine and epoch; ask for a new one");
  }
  if (target.rails.size() != peer.rails.size()) {
    return fail(ErrorCode::invalid, "write: the region key has {} rails, its peer {}", target.rails.size(),
                peer.rails.size());
  }
  if (options.counter && options.counter->epoch != peer.epoch) {
    return fail(ErrorCode::denied, "write: the counter is not of this peer's epoch; ask for a new one");
  }
  if (options.counter &&
      (options.counter->slot >= CounterTable::kMaxSlots || options.counter->generation > 0xffff)) {
    return fail(ErrorCode::invalid, "write: not a counter's name");
  }
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
  const std::uint32_t index = free_peers_.back();
  free_peers_.pop_back();
  peers_[index].address = address;
  peers_[index].state = Peer::State::fresh;
  directory_.emplace(address.engine_id, index);
  return index;
}

Result<std::uint32_t> EngineCore::take_slot(TransferSlot::Kind kind, std::uint32_t peer, Done done,
                                            TimePoint deadline) {
  if (free_slots_.empty()) {
    return fail(ErrorCode::exhausted, "{} transfers are under way, the limit; wait for some to end",
                options_.max_transfers);
  }
  const std::uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  TransferSlot& slot = slots_[index];
  slot.used = true;
  slot.kind = kind;
  slot.peer = peer;
  slot.peer_generation = peers_[peer].generation;
  slot.done = std::move(done);
  slot.deadline = deadline;
  return index;
}

Transfer EngineCore::enqueue(std::uint32_t index) {
  const std::uint32_t generation = slots_[index].generation;
  commands_.push_back({Command::Kind::start, index, generation});
  count_.submitted.fetch_add(1, std::memory_order_relaxed);
  return Transfer(weak_from_this(), std::uint64_t{generation} << 32 | index);
}

Result<Transfer> EngineCore::submit_write(WritePlan plan, Region source, const PeerAddress& peer,
                                          const RegionKey& target, const SubmitOptions& options, Done done) {
  if (auto ok = check_source(source, plan.bytes()); !ok) return pass(ok.error());
  if (auto ok = check_target(peer, target, options); !ok) return pass(ok.error());
  const auto rail = std::find_if(peer.rails.begin(), peer.rails.end(),
                                 [&](const PeerAddress::Rail& each) { return each.fabric == rail_name_; });
  if (rail == peer.rails.end()) {
    return fail(ErrorCode::unsupported, "the peer at {}:{} has no rail of fabric '{}'", peer.control_host,
                peer.control_port, rail_name_);
  }
  Transfer transfer;
  {
    std::lock_guard lock(mutex_);
    auto index = peer_for(peer, false);
    if (!index) return pass(index.error());
    auto taken = take_slot(TransferSlot::Kind::write, *index, std::move(done), options.deadline);
    if (!taken) return pass(taken.error());
    TransferSlot& slot = slots_[*taken];
    slot.plan = std::move(plan);
    slot.source = std::move(source);
    slot.target = target.rails[static_cast<std::size_t>(rail - peer.rails.begin())];
    if (options.counter) {
      slot.immediate = CounterTable::immediate_of(options.counter->slot, options.counter->generation);
    }
    transfer = enqueue(*taken);
  }
  wake();
  return transfer;
}

Result<Transfer> EngineCore::write(Write write, Done done) {
  auto plan = WritePlan::of(write);
  if (!plan) return pass(plan.error());
  return submit_write(std::move(*plan), std::move(write.source), write.peer, write.target, write.options,
                      std::move(done));
}

Result<Transfer> EngineCore::write_pages(PagedWrite write, Done done) {
  auto plan = WritePlan::of(write);
  if (!plan) return pass(plan.error());
  return submit_write(std::move(*plan), std::move(write.source), write.peer, write.target, write.options,
                      std::move(done));
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
    } else if (drained && !closed_ && late_drained_.size() < kMaxTasks) {
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

EngineMetrics EngineCore::metrics() const {
  auto read = [](const auto& value) { return value.load(std::memory_order_relaxed); };
  EngineMetrics metrics;
  metrics.rails.push_back({.fabric = rail_name_,
                           .bytes_written = read(count_.bytes_written),
                           .work_requests = read(count_.work_requests),
                           .messages_sent = read(count_.messages_sent),
                           .messages_received = read(count_.messages_received),
                           .retries = read(count_.retries)});
  metrics.transfers_submitted = read(count_.submitted);
  metrics.transfers_done = read(count_.done);
  metrics.transfers_failed = read(count_.failed);
  metrics.counters_used = counters_->used();
  metrics.peers_connected = read(count_.peers_connected);
  metrics.peers_lost = read(count_.peers_lost);
  metrics.messages_dropped = read(count_.messages_dropped);
  metrics.stray_immediates = read(count_.stray_immediates);
  std::lock_guard lock(mutex_);
  metrics.transfers_pending = options_.max_transfers - static_cast<std::uint32_t>(free_slots_.size());
  return metrics;
}

}  // namespace switchyard
