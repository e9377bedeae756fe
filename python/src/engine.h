// switchyard._core.Engine: a TransferEngine for Python. The engine's worker thread never takes the
// interpreter's lock: what it has to tell goes through Outcomes and EventQueues. Every call into the engine
// lets go of the lock.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>

#include "event_queue.h"
#include "exported.h"
#include "operation.h"
#include "process_bound.h"
#include "region.h"
#include "switchyard/transfer.h"

namespace switchyard::python {

class PyEngine {
 public:
  struct Options {
    EngineOptions engine;
    std::size_t message_backlog = 16384;
  };

  explicit PyEngine(const Options& options);
  ~PyEngine();
  PyEngine(const PyEngine&) = delete;
  PyEngine& operator=(const PyEngine&) = delete;

  const PeerAddress& address() const { return address_; }
  const std::string& name() const { return name_; }
  bool closed() const { return closed_.load(); }
  void close();

  std::unique_ptr<PyRegion> register_memory(nb::handle object);
  std::unique_ptr<PyRegion> register_dmabuf(std::uintptr_t address, std::size_t bytes, int dmabuf,
                                            std::uint64_t offset, nb::object owner);
  std::unique_ptr<Watch> watch(nb::handle memory, std::uint64_t offset, std::shared_ptr<EventQueue> queue,
                               std::uint64_t token);
  std::shared_ptr<ProcessBound<ExpectedCounter>> make_counter();
  TransferOperation write(Write write, const PyRegion& source);
  TransferOperation write_pages(PagedWrite write, const PyRegion& source);
  TransferOperation send(const PeerAddress& peer, nb::handle message, std::optional<double> timeout);
  TransferOperation scatter(Scatter scatter, const PyRegion& source);
  TransferOperation signal(const Signal& signal);
  Operation connect(const PeerAddress& peer);
  void deliver_messages(std::shared_ptr<EventQueue> queue, std::uint64_t token);
  void deliver_losses(std::shared_ptr<EventQueue> queue, std::uint64_t token);
  EngineMetrics metrics();

 private:
  // Calls f(engine) without the GIL. Raises Cancelled when it was closed, Invalid in a forked child.
  template <class F>
  auto with_engine(F f);
  Region source_of(const PyRegion& region) const;
  std::unique_ptr<PyRegion> adopt(Region region, Exported memory);

  std::string name_;
  std::size_t backlog_;
  PeerAddress address_;
  std::shared_ptr<Returned> returned_ = std::make_shared<Returned>();
  std::shared_ptr<RegionTable> regions_ = std::make_shared<RegionTable>();
  std::shared_ptr<std::atomic<std::uint64_t>> dropped_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  // Shared by calls into the engine, held alone to close it; never while waiting for the GIL.
  std::shared_mutex mutex_;
  ProcessBound<std::unique_ptr<TransferEngine>> engine_;
  std::atomic<bool> closed_{false};
};

void bind_engine(nanobind::module_& module);

}  // namespace switchyard::python
