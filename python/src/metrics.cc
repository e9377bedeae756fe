#include "metrics.h"

#include <nanobind/stl/string.h>

#include <vector>

namespace switchyard::python {

namespace nb = nanobind;

namespace {

nb::dict to_dict(const EngineMetrics::Rail& rail);
nb::dict to_dict(const EngineMetrics::Path& path);
nb::dict to_dict(const EngineMetrics::Peer& peer);
nb::dict to_dict(const EngineMetrics::Operation& operation);

template <class T>
nb::list to_list(const std::vector<T>& values) {
  nb::list list;
  for (const T& value : values) list.append(to_dict(value));
  return list;
}

nb::dict to_dict(const EngineMetrics::Rail& rail) {
  nb::dict each;
  each["fabric"] = rail.fabric;
  each["device"] = rail.device;
  each["healthy"] = rail.healthy;
  each["bytes_written"] = rail.bytes_written;
  each["work_requests"] = rail.work_requests;
  each["outstanding"] = rail.outstanding;
  each["retries"] = rail.retries;
  each["failed_requests"] = rail.failed_requests;
  return each;
}

nb::dict to_dict(const EngineMetrics::Path& path) {
  nb::dict each;
  each["local_rail"] = path.local_rail;
  each["remote_rail"] = path.remote_rail;
  each["up"] = path.up;
  each["bytes_written"] = path.bytes_written;
  each["work_requests"] = path.work_requests;
  each["outstanding"] = path.outstanding;
  each["failovers"] = path.failovers;
  each["bytes_per_second"] = path.bytes_per_second;
  return each;
}

nb::dict to_dict(const EngineMetrics::Peer& peer) {
  nb::dict each;
  each["address"] = peer.address;
  each["paths"] = to_list(peer.paths);
  return each;
}

nb::dict to_dict(const EngineMetrics::Operation& operation) {
  nb::list log2;
  for (const std::uint64_t count : operation.log2) log2.append(count);
  nb::dict each;
  each["name"] = operation.name;
  each["count"] = operation.count;
  each["failed"] = operation.failed;
  each["bytes"] = operation.bytes;
  each["seconds"] = operation.seconds;
  each["log2_nanoseconds"] = log2;
  return each;
}

}  // namespace

nb::dict to_dict(const EngineMetrics& metrics) {
  nb::dict all;
  all["rails"] = to_list(metrics.rails);
  all["peers"] = to_list(metrics.peers);
  all["operations"] = to_list(metrics.operations);
  all["transfers_submitted"] = metrics.transfers_submitted;
  all["transfers_done"] = metrics.transfers_done;
  all["transfers_failed"] = metrics.transfers_failed;
  all["transfers_pending"] = metrics.transfers_pending;
  all["messages_sent"] = metrics.messages_sent;
  all["messages_received"] = metrics.messages_received;
  all["messages_dropped"] = metrics.messages_dropped;
  all["counters_used"] = metrics.counters_used;
  all["peers_connected"] = metrics.peers_connected;
  all["peers_lost"] = metrics.peers_lost;
  all["failovers"] = metrics.failovers;
  all["requests_sent_again"] = metrics.requests_sent_again;
  all["stray_arrivals"] = metrics.stray_arrivals;
  all["repeated_arrivals"] = metrics.repeated_arrivals;
  return all;
}

}  // namespace switchyard::python
