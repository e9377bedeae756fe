#include "engine.h"

#include <mutex>
#include <new>
#include <utility>

#include "base/log.h"
#include "errors.h"
#include "unlocked.h"

namespace switchyard::python {

namespace {

Result<std::unique_ptr<TransferEngine>> open(const EngineOptions& options) {
  Unlocked unlocked;
  return TransferEngine::open(options);
}

}  // namespace

PyEngine::PyEngine(const Options& options)
    : name_(options.engine.name), backlog_(options.message_backlog), engine_(unwrap(open(options.engine))) {
  address_ = (*engine_)->address();
}

PyEngine::~PyEngine() { close(); }

void PyEngine::close() {
  if (!engine_.here()) {
    // The parent's; its regions' memory is a copy, but what describes them is not.
    static_cast<void>(new auto(regions_));
    return;
  }
  closed_.store(true);
  {
    Unlocked unlocked;
    std::unique_lock lock(mutex_);  // whoever closes at the same time waits for the first
    // Joins the worker. After that nothing of this engine reads or writes the regions.
    (*engine_).reset();
    regions_->clear();
  }
  returned_->give_back();
}

template <class F>
auto PyEngine::with_engine(F f) {
  if (!engine_.here()) {
    raise(
        ErrorCode::invalid,
        "engine '{}' belongs to the process that this one was forked from; open one here, or start processes "
        "with the method 'spawn'",
        name_);
  }
  returned_->give_back();
  auto result = [&] {
    Unlocked unlocked;
    // The flag first: a stream of calls must not keep the lock from whoever closes.
    std::shared_lock lock(mutex_, std::defer_lock);
    if (!closed_.load()) lock.lock();
    if (!lock.owns_lock() || *engine_ == nullptr) {
      return decltype(f(**engine_))(fail(ErrorCode::cancelled, "engine '{}' was closed", name_));
    }
    return f(**engine_);
  }();
  return unwrap(std::move(result));
}

std::unique_ptr<PyRegion> PyEngine::register_memory(nb::handle object) {
  Exported memory(object, "register");
  memory.require_writable("register");
  memory.require_contiguous("register");
  Region region = with_engine(
      [&](TransferEngine& engine) { return engine.register_region(memory.data(), memory.bytes()); });
  return adopt(std::move(region), std::move(memory));
}

std::unique_ptr<PyRegion> PyEngine::register_dmabuf(std::uintptr_t address, std::size_t bytes, int dmabuf,
                                                    std::uint64_t offset, nb::object owner) {
  auto* base = reinterpret_cast<void*>(address);
  Exported memory = Exported::kept_by(std::move(owner), base, bytes);
  Region region = with_engine(
      [&](TransferEngine& engine) { return engine.register_dmabuf(base, bytes, dmabuf, offset); });
  return adopt(std::move(region), std::move(memory));
}

std::unique_ptr<PyRegion> PyEngine::adopt(Region region, Exported memory) {
  auto registered = std::make_shared<RegisteredMemory>(std::move(region), std::move(memory), returned_);
  with_engine([&](TransferEngine&) {
    regions_->add(registered);  // not once the engine has been closed
    return Status{};
  });
  return std::make_unique<PyRegion>(regions_, registered, returned_);
}

std::shared_ptr<ProcessBound<ExpectedCounter>> PyEngine::make_counter() {
  Counter counter = with_engine([](TransferEngine& engine) { return engine.make_counter(); });
  return std::make_shared<ProcessBound<ExpectedCounter>>(ExpectedCounter(std::move(counter)));
}

Region PyEngine::source_of(const PyRegion& region) const {
  auto memory = region.memory();
  if (memory == nullptr) raise(ErrorCode::invalid, "the source region was closed");
  return RegisteredMemory::handle_of(memory);
}

TransferOperation PyEngine::write(Write write, const PyRegion& source) {
  TransferOperation operation;
  write.source = source_of(source);
  operation.transfer =
      with_engine([&](TransferEngine& engine) { return engine.write(std::move(write), operation.done()); });
  return operation;
}

TransferOperation PyEngine::write_pages(PagedWrite write, const PyRegion& source) {
  TransferOperation operation;
  write.source = source_of(source);
  operation.transfer = with_engine(
      [&](TransferEngine& engine) { return engine.write_pages(std::move(write), operation.done()); });
  return operation;
}

TransferOperation PyEngine::send(const PeerAddress& peer, nb::handle message, std::optional<double> timeout) {
  TransferOperation operation;
  const TimePoint deadline = deadline_after(timeout, "send");
  Exported memory(message, "send");
  memory.require_contiguous("send");
  operation.transfer = with_engine([&](TransferEngine& engine) {
    return engine.send(peer, std::span(memory.data(), memory.bytes()), operation.done(), deadline);
  });
  return operation;
}

TransferOperation PyEngine::scatter(Scatter scatter, const PyRegion& source) {
  TransferOperation operation;
  scatter.source = source_of(source);
  operation.transfer = with_engine(
      [&](TransferEngine& engine) { return engine.scatter(std::move(scatter), operation.done()); });
  return operation;
}

TransferOperation PyEngine::signal(const Signal& signal) {
  TransferOperation operation;
  operation.transfer =
      with_engine([&](TransferEngine& engine) { return engine.signal(signal, operation.done()); });
  return operation;
}

std::unique_ptr<Watch> PyEngine::watch(nb::handle memory, std::uint64_t offset,
                                       std::shared_ptr<EventQueue> queue, std::uint64_t token) {
  Exported exported(memory, "watch");
  exported.require_contiguous("watch");
  if (exported.bytes() < sizeof(std::uint64_t) || offset > exported.bytes() - sizeof(std::uint64_t)) {
    raise(ErrorCode::out_of_range, "watch: no word of 8 bytes at {} in {} bytes", offset, exported.bytes());
  }
  const auto* word = reinterpret_cast<const std::uint64_t*>(exported.data() + offset);
  auto state = std::make_shared<EventQueue::Word>();
  Watcher watcher = with_engine([&](TransferEngine& engine) {
    return engine.watch(word, [queue, token, state](std::uint64_t before, std::uint64_t now) {
      queue->changed(token, state, before, now);
    });
  });
  return std::make_unique<Watch>(std::move(watcher), std::move(exported));
}

Operation PyEngine::connect(const PeerAddress& peer) {
  Operation operation;
  with_engine([&](TransferEngine& engine) { return engine.connect(peer, operation.done()); });
  return operation;
}

void PyEngine::deliver_messages(std::shared_ptr<EventQueue> queue, std::uint64_t token) {
  MessageHandler handler;
  if (queue != nullptr) {
    handler = [queue, token, backlog = backlog_, dropped = dropped_, name = name_](
                  const PeerAddress& from, std::span<const std::byte> message) {
      if (queue->message(token, from, message, backlog)) return;
      if (dropped->fetch_add(1) == 0) {
        log::warn("engine '{}': a message was dropped, because its Python handler is {} messages behind",
                  name, backlog);
      }
    };
  }
  with_engine([&](TransferEngine& engine) {
    engine.on_message(std::move(handler));
    return Status{};
  });
}

void PyEngine::deliver_losses(std::shared_ptr<EventQueue> queue, std::uint64_t token) {
  PeerHandler handler;
  if (queue != nullptr) {
    handler = [queue, token, backlog = backlog_, name = name_](const PeerAddress& peer, const Error& why) {
      // Room is left for losses when messages have taken theirs.
      if (queue->lost(token, peer, why, 2 * backlog)) return;
      log::error("engine '{}': its Python handler is too far behind to be told that a peer is lost: {}", name,
                 why.message);
    };
  }
  with_engine([&](TransferEngine& engine) {
    engine.on_peer_lost(std::move(handler));
    return Status{};
  });
}

EngineMetrics PyEngine::metrics() {
  EngineMetrics metrics =
      with_engine([](TransferEngine& engine) { return Result<EngineMetrics>(engine.metrics()); });
  metrics.messages_dropped += dropped_->load();
  return metrics;
}

}  // namespace switchyard::python
