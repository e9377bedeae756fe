// The public face: thin handles over EngineCore.
#include <thread>

#include "switchyard/transfer.h"
#include "transfer/engine_core.h"
#include "transfer/worker.h"

namespace switchyard {

std::byte* Region::base() const { return state_ ? state_->base : nullptr; }
std::size_t Region::bytes() const { return state_ ? state_->bytes : 0; }
RegionKey Region::key() const { return state_ ? state_->key : RegionKey{}; }

Counter::State::~State() {
  table->free(name);
  if (auto core = engine.lock()) core->wake();
}

Watcher::State::~State() {
  if (!entry) return;
  std::lock_guard hold(entry->mutex);
  entry->word = nullptr;
}

CounterId Counter::id() const {
  return state_ ? CounterId{state_->name.slot, state_->name.generation, state_->epoch} : CounterId{};
}

Status Counter::expect(std::uint64_t transfers, TimePoint deadline, Done done) {
  if (!state_) return fail(ErrorCode::invalid, "expect: an empty counter");
  auto ok = state_->table->expect(state_->name, transfers, deadline, std::move(done));
  if (auto core = state_->engine.lock()) core->wake();
  return ok;
}

void Counter::cancel() {
  if (!state_) return;
  state_->table->cancel(state_->name);
  if (auto core = state_->engine.lock()) core->wake();
}

std::uint64_t Counter::arrived() const { return state_ ? state_->table->arrived(state_->name) : 0; }

void Transfer::cancel(std::function<void()> drained) {
  if (auto core = engine_.lock(); core && id_ != 0) {
    core->cancel(id_, std::move(drained));
  } else if (drained) {
    drained();  // the engine is gone, and with it every way to land a byte
  }
}

Result<std::unique_ptr<TransferEngine>> TransferEngine::open(const EngineOptions& options) {
  auto core = EngineCore::open(options);
  if (!core) return pass(core.error());
  auto engine = std::make_unique<TransferEngine>(*core);
  (*core)->start_worker();
  return engine;
}

TransferEngine::~TransferEngine() { core_->stop_worker(); }

PeerAddress TransferEngine::address() const { return core_->address(); }
Result<Region> TransferEngine::register_region(void* base, std::size_t bytes) {
  return core_->register_region({base, bytes});
}
Result<Region> TransferEngine::register_dmabuf(void* base, std::size_t bytes, int dmabuf,
                                               std::uint64_t dmabuf_offset) {
  if (dmabuf < 0) return fail(ErrorCode::invalid, "register_dmabuf: not a descriptor");
  return core_->register_region({base, bytes, dmabuf, dmabuf_offset});
}
Result<Counter> TransferEngine::make_counter() { return core_->make_counter(); }
Result<Transfer> TransferEngine::write(Write write, Done done) {
  return core_->write(std::move(write), std::move(done));
}
Result<Transfer> TransferEngine::write_pages(PagedWrite write, Done done) {
  return core_->write_pages(std::move(write), std::move(done));
}
Result<Transfer> TransferEngine::scatter(Scatter scatter, Done done) {
  return core_->scatter(std::move(scatter), std::move(done));
}
Result<Transfer> TransferEngine::signal(const Signal& signal, Done done) {
  return core_->signal(signal, std::move(done));
}
Result<Watcher> TransferEngine::watch(const std::uint64_t* word, WatchHandler handler) {
  return core_->watch(word, std::move(handler));
}
Result<Transfer> TransferEngine::send(const PeerAddress& peer, std::span<const std::byte> message, Done done,
                                      TimePoint deadline) {
  return core_->send(peer, message, std::move(done), deadline);
}
void TransferEngine::on_message(MessageHandler handler) { core_->on_message(std::move(handler)); }
void TransferEngine::on_peer_lost(PeerHandler handler) { core_->on_peer_lost(std::move(handler)); }
Status TransferEngine::connect(const PeerAddress& peer, Done done) {
  return core_->connect(peer, std::move(done));
}
Status TransferEngine::post(std::function<void()> task) { return core_->post(std::move(task)); }
EngineMetrics TransferEngine::metrics() const { return core_->metrics(); }

}  // namespace switchyard
