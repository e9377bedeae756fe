#include "metrics.h"

#include <nanobind/stl/string.h>

namespace switchyard::python {

namespace nb = nanobind;

nb::dict to_dict(const EngineMetrics& metrics) {
  nb::list rails;
  for (const auto& rail : metrics.rails) {
    nb::dict each;
    each["fabric"] = rail.fabric;
    each["bytes_written"] = rail.bytes_written;
    each["work_requests"] = rail.work_requests;
    each["messages_sent"] = rail.messages_sent;
    each["messages_received"] = rail.messages_received;
    each["retries"] = rail.retries;
    rails.append(each);
  }
  nb::dict all;
  all["rails"] = rails;
  all["transfers_submitted"] = metrics.transfers_submitted;
  all["transfers_done"] = metrics.transfers_done;
  all["transfers_failed"] = metrics.transfers_failed;
  all["transfers_pending"] = metrics.transfers_pending;
  all["counters_used"] = metrics.counters_used;
  all["peers_connected"] = metrics.peers_connected;
  all["peers_lost"] = metrics.peers_lost;
  all["messages_dropped"] = metrics.messages_dropped;
  all["stray_immediates"] = metrics.stray_immediates;
  return all;
}

}  // namespace switchyard::python
