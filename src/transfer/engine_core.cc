// Opening, stepping, callbacks, the end of transfers and of the engine.
#include "transfer/engine_core.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <random>

#include "base/log.h"

namespace switchyard {

using transfer::CounterTable;
using transfer::kNoIndex;
using transfer::Peer;
using transfer::TransferSlot;

namespace {

constexpr Nanos kControlInterval = std::chrono::microseconds(20);  // between looks at the sockets while busy
constexpr Nanos kShutdownLimit = std::chrono::milliseconds(200);   // for what the fabric still has

std::uint64_t random_word() {
  std::random_device entropy;
  return (std::uint64_t{entropy()} << 32) | entropy();
}

Status check(const EngineOptions& options) {
  if (options.max_transfers == 0 || options.max_transfers > (1u << 20) || options.max_counters == 0 ||
      options.max_counters > CounterTable::kMaxSlots || options.max_peers == 0 ||
      options.max_peers > (1u << 16) || options.message_slots == 0 ||
      options.message_bytes > (std::size_t{1} << 30)) {
    return fail(ErrorCode::invalid, "engine '{}': a limit of its options is zero or too large", options.name);
  }
  if (options.heartbeat_interval <= Nanos::zero() || options.heartbeat_limit <= options.heartbeat_interval) {
    return fail(ErrorCode::invalid, "engine '{}': heartbeat_limit has to exceed heartbeat_interval",
                options.name);
  }
  return {};
}

}  // namespace

EngineCore::EngineCore(const EngineOptions& options)
    : options_(options), deadlines_(options.max_transfers + options.max_counters + options.max_peers) {
  slots_.resize(options.max_transfers);
  peers_.resize(options.max_peers);
  link_peers_.assign(transfer::ControlChannel::slots_for(options.max_peers), kNoIndex);
  for (std::uint32_t i = options.max_transfers; i-- > 0;) free_slots_.push_back(i);
  for (std::uint32_t i = options.max_peers; i-- > 0;) free_peers_.push_back(i);
  commands_.reserve(2 * options.max_transfers);
  taken_commands_.reserve(2 * options.max_transfers);
  due_.reserve(options.max_transfers);
  running_.reserve(options.max_transfers);
  counters_ = std::make_shared<CounterTable>(options.max_counters);
}

EngineCore::~EngineCore() {
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

Result<std::shared_ptr<EngineCore>> EngineCore::open(const EngineOptions& options) {
  if (auto ok = check(options); !ok) return pass(ok.error());
  std::shared_ptr<EngineCore> self(new EngineCore(options));
  self->rail_name_ = options.fabric;
  if (options.fabric == "auto") {
    auto chosen = fabric::automatic_fabric(options.control_host);
    if (!chosen) return fail_at(fmt::format("engine '{}'", options.name), chosen.error());
    self->rail_name_ = *chosen;
  }
  auto rail =
      fabric::open_fabric(self->rail_name_, {.host = options.control_host, .max_peers = options.max_peers});
  if (!rail) return fail_at(fmt::format("engine '{}'", options.name), rail.error());
  self->rail_ = std::move(*rail);
  auto control = transfer::ControlChannel::open({.host = options.control_host,
                                                 .port = options.control_port,
                                                 .max_links = options.max_peers,
                                                 .message_bytes = options.message_bytes,
                                                 .message_slots = options.message_slots,
                                                 .heartbeat_interval = options.heartbeat_interval,
                                                 .heartbeat_limit = options.heartbeat_limit,
                                                 .connect_limit = options.connect_limit});
  if (!control) return fail_at(fmt::format("engine '{}'", options.name), control.error());
  self->control_ = std::move(*control);
  self->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (self->wake_fd_ < 0)
    return fail(ErrorCode::exhausted, "engine '{}': eventfd: {}", options.name, strerror(errno));

  self->self_.engine_id = {random_word(), random_word()};
  self->self_.epoch = random_word();
  self->self_.control_host = options.control_host;
  self->self_.control_port = self->control_->port();
  self->self_.rails.push_back({self->rail_name_, self->rail_->address()});
  self->control_->set_self(self->self_);
  log::info("engine '{}': fabric {}{}, control channel at {}:{}", options.name, self->rail_name_,
            options.fabric == "auto" ? " (chosen automatically)" : "", options.control_host,
            self->self_.control_port);
  return self;
}

bool EngineCore::step(TimePoint now) {
  now_ = now;
  bool busy = drain_commands();
  if (now - last_control_ >= kControlInterval) {
    last_control_ = now;
    busy |= control_->poll(now, *this);
  }
  busy |= poll_rail();
  busy |= schedule();
  busy |= fire_deadlines();
  busy |= take_counters();
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
  Peer& peer = peers_[slot.peer];
  slot.started = true;
  if (shutting_down_) return end(index, fail(ErrorCode::cancelled, "the engine is closing"));
  if (peer.generation != slot.peer_generation)
    return end(index, fail(ErrorCode::peer_lost, "the peer is gone"));
  if (slot.deadline != TimePoint::max()) deadlines_.set(index, slot.deadline);
  (slot.kind == TransferSlot::Kind::message ? peer.messages : peer.writes).push_back(slots_, index);
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
  Peer& peer = peers_[slot.peer];
  if (peer.generation == slot.peer_generation) {
    (slot.kind == TransferSlot::Kind::message ? peer.messages : peer.writes).remove(slots_, index);
  }
  (status ? count_.done : count_.failed).fetch_add(1, std::memory_order_relaxed);
  if (slot.done) due_.push_back({.done = std::exchange(slot.done, {}), .status = std::move(status)});
  if (slot.outstanding == 0) release(index);
}

void EngineCore::report_drained(std::uint32_t index) {
  std::lock_guard lock(mutex_);
  for (auto& drained : slots_[index].drained) due_.push_back({.plain = std::move(drained)});
  slots_[index].drained.clear();
}

void EngineCore::release(std::uint32_t index) {
  TransferSlot& slot = slots_[index];
  slot.plan = {};
  slot.source = {};
  slot.message.clear();
  if (slot.message.capacity() > 4096) slot.message = {};
  slot.immediate.reset();
  slot.immediate_posted = slot.ended = slot.started = false;
  std::lock_guard lock(mutex_);
  for (auto& drained : slot.drained) due_.push_back({.plain = std::move(drained)});
  slot.drained.clear();
  slot.cancel_queued = false;
  slot.used = false;
  ++slot.generation;
  if (slot.generation == 0) slot.generation = 1;
  free_slots_.push_back(index);
}

bool EngineCore::fire_deadlines() {
  bool any = false;
  for (std::uint32_t id; (id = deadlines_.take_due(now_)) != kNoIndex; any = true) {
    if (id < options_.max_transfers) {
      end(id, fail(ErrorCode::timed_out, "the transfer was not complete at its deadline"));
    } else if (id < options_.max_transfers + options_.max_counters) {
      counters_->time_out(id - options_.max_transfers, now_);
    } else {
      dial(id - options_.max_transfers - options_.max_counters);
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
    if (slots_[i].started) end(i, pass(why));
  }
  counters_->close(why);
  take_counters();
  for (Peer& peer : peers_) {
    if (peer.control != transfer::kNoLink) control_->close(peer.control, "its engine was closed");
    peer.control = transfer::kNoLink;
  }
  run_callbacks();
}

void EngineCore::finish_shutdown() {
  if (finished_) return;
  // After this the fabric touches no memory: what had not drained has now.
  rail_->close();
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].started) {
      slots_[i].outstanding = 0;
      release(i);
    }
  }
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
