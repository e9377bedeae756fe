// What the engine tells of itself.
#include "transfer/engine_core.h"

namespace switchyard {

EngineMetrics EngineCore::metrics() const {
  EngineMetrics metrics;
  for (const transfer::EngineRail& rail : rails_) {
    metrics.rails.push_back({.fabric = rail.fabric,
                             .device = rail.device,
                             .healthy = rail.healthy.get(),
                             .bytes_written = rail.bytes_written.get(),
                             .work_requests = rail.work_requests.get(),
                             .outstanding = rail.outstanding.get(),
                             .retries = rail.retries.get(),
                             .failed_requests = rail.failed_requests.get()});
  }
  constexpr std::array<const char*, kOperations> kNames = {"write", "message", "connect", "scatter"};
  for (std::size_t i = 0; i < kOperations; ++i) {
    const OperationCount& count = operations_[i];
    EngineMetrics::Operation operation{.name = kNames[i],
                                       .count = count.count.get(),
                                       .failed = count.failed.get(),
                                       .bytes = count.bytes.get(),
                                       .seconds = static_cast<double>(count.nanoseconds.get()) * 1e-9};
    for (std::size_t j = 0; j < operation.log2.size(); ++j) operation.log2[j] = count.log2[j].get();
    metrics.operations.push_back(std::move(operation));
  }
  metrics.transfers_submitted = count_.submitted.load(std::memory_order_relaxed);
  metrics.transfers_done = count_.done.get();
  metrics.transfers_failed = count_.failed.get();
  metrics.messages_sent = count_.messages_sent.get();
  metrics.messages_received = count_.messages_received.get();
  metrics.messages_dropped = count_.messages_dropped.get();
  metrics.counters_used = counters_->used();
  metrics.peers_connected = count_.peers_connected.get();
  metrics.peers_lost = count_.peers_lost.get();
  metrics.failovers = count_.failovers.get();
  metrics.requests_sent_again = count_.sent_again.get();
  metrics.stray_arrivals = count_.stray_arrivals.get();
  metrics.repeated_arrivals = count_.repeated_arrivals.get();
  std::lock_guard lock(mutex_);
  metrics.transfers_pending = options_.max_transfers - static_cast<std::uint32_t>(free_slots_.size());
  for (const auto& [id, index] : directory_) {
    const transfer::Peer& peer = peers_[index];
    EngineMetrics::Peer shown{.address = peer.address};
    for (const transfer::Path& path : peer.paths) {
      shown.paths.push_back({.local_rail = path.local,
                             .remote_rail = path.remote,
                             .up = path.up.get(),
                             .bytes_written = path.bytes_written.get(),
                             .work_requests = path.work_requests.get(),
                             .outstanding = path.outstanding.get(),
                             .failovers = path.failovers.get(),
                             .bytes_per_second = path.shown_rate.get()});
    }
    metrics.peers.push_back(std::move(shown));
  }
  return metrics;
}

}  // namespace switchyard
