#include "pool/engine_stats.h"

#include <cmath>

namespace switchyard::pool {
namespace {

using Labels = std::vector<StatLabel>;

// The upper end of the bucket that the quantile falls into.
double quantile(const EngineMetrics::Operation& operation, double share) {
  const double rank = share * static_cast<double>(operation.count);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < operation.log2.size(); ++i) {
    seen += operation.log2[i];
    if (static_cast<double>(seen) >= rank) return std::ldexp(1e-9, static_cast<int>(i));
  }
  return 0;
}

}  // namespace

void add_engine_stats(const EngineMetrics& engine, Stats& stats) {
  const auto gauge = [&stats](const char* name, const char* help, auto value, Labels labels = {}) {
    stats.samples.push_back({name, help, false, static_cast<double>(value), std::move(labels)});
  };
  const auto counter = [&stats](const char* name, const char* help, auto value, Labels labels = {}) {
    stats.samples.push_back({name, help, true, static_cast<double>(value), std::move(labels)});
  };
  for (std::size_t i = 0; i < engine.rails.size(); ++i) {
    const auto& rail = engine.rails[i];
    const Labels labels = {{"rail", std::to_string(i)}, {"fabric", rail.fabric}, {"device", rail.device}};
    gauge("rail_up", "1 if the rail's port is up", rail.healthy ? 1 : 0, labels);
    counter("transfer_bytes_total", "Bytes written into other processes", rail.bytes_written, labels);
    counter("transfer_work_requests_total", "Work requests posted to rails", rail.work_requests, labels);
    gauge("transfer_work_requests_pending", "Work requests under way", rail.outstanding, labels);
    counter("transfer_post_retries_total", "Posts that a rail had no room for", rail.retries, labels);
    counter("transfer_work_requests_failed_total", "Work requests that failed", rail.failed_requests, labels);
  }
  for (const auto& peer : engine.peers) {
    const std::string name = fmt::format("{}:{}", peer.address.control_host, peer.address.control_port);
    for (const auto& path : peer.paths) {
      if (!path.up && path.work_requests == 0 && path.failovers == 0) continue;
      const Labels labels = {{"peer", name},
                             {"rail", std::to_string(path.local_rail)},
                             {"peer_rail", std::to_string(path.remote_rail)},
                             {"fabric", engine.rails[path.local_rail].fabric}};
      gauge("path_up", "1 if the path between two rails is up", path.up ? 1 : 0, labels);
      counter("path_bytes_total", "Bytes written over the path", path.bytes_written, labels);
      gauge("path_work_requests_pending", "Work requests under way on the path", path.outstanding, labels);
      gauge("path_bytes_per_second", "Speed of the path, as last measured", path.bytes_per_second, labels);
      counter("path_failovers_total", "Times that the path broke while its peer lived", path.failovers,
              labels);
    }
  }
  for (const auto& operation : engine.operations) {
    const Labels labels = {{"operation", operation.name}};
    counter("transfer_operations_total", "Operations that succeeded", operation.count, labels);
    counter("transfer_operations_failed_total", "Operations that failed", operation.failed, labels);
    counter("transfer_operation_bytes_total", "Bytes of operations that succeeded", operation.bytes, labels);
    counter("transfer_operation_seconds_total", "Time that operations took, from start to Done",
            operation.seconds, labels);
    for (const double share : {0.5, 0.99}) {
      Labels with_quantile = labels;
      with_quantile.emplace_back("quantile", fmt::format("{}", share));
      gauge("transfer_operation_seconds", "Time that an operation took, to the next power of two",
            quantile(operation, share), std::move(with_quantile));
    }
  }
  counter("transfers_total", "Transfers submitted", engine.transfers_submitted);
  counter("transfers_failed_total", "Transfers that failed", engine.transfers_failed);
  gauge("transfers_pending", "Transfers under way", engine.transfers_pending);
  gauge("transfer_counters_used", "Counters in use", engine.counters_used);
  counter("transfer_failovers_total", "Paths that broke while their peer lived", engine.failovers);
  counter("transfer_requests_sent_again_total", "Work requests that another path took over",
          engine.requests_sent_again);
  counter("transfer_arrivals_repeated_total", "Arrivals that a failover sent twice, counted once",
          engine.repeated_arrivals);
  counter("transfer_arrivals_stray_total", "Arrivals for counters or peers that were gone",
          engine.stray_arrivals);
}

}  // namespace switchyard::pool
