// The gateway's own numbers, in Prometheus' form.
//
// Counters may be changed by any thread; the handles are looked up once and stay valid. Labels come from
// fixed sets (routes, status codes, served models), so that clients cannot make new series.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::gateway {

struct ModelMetrics {
  prometheus::Counter* prompt_tokens = nullptr;
  prometheus::Counter* completion_tokens = nullptr;
  prometheus::Histogram* time_to_first_token = nullptr;
  prometheus::Histogram* time_between_tokens = nullptr;
};

class Metrics {
 public:
  Metrics();

  void count_request(std::string_view route, int status, double seconds);
  // The same for the same id, for as long as this lives: a model that comes back goes on counting. `id` comes
  // from the catalogue, not from a client. From so many models on, the rest share one series, "other".
  ModelMetrics for_model(const std::string& id);
  // Exposition format: these metrics and `others`.
  std::string text(std::vector<prometheus::MetricFamily> others) const;

 private:
  mutable prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& request_seconds_;
  std::mutex mutex_;
  std::map<std::string, ModelMetrics> models_;

 public:
  prometheus::Gauge& connections;
  prometheus::Counter& connections_accepted;
  prometheus::Counter& connections_refused;
  prometheus::Gauge& requests_in_flight;
  prometheus::Gauge& streams;
  prometheus::Counter& client_disconnects;    // a generation lost its client
  prometheus::Counter& slow_clients_dropped;  // a client did not read its stream
  prometheus::Counter& queue_rejects;         // 429 from the pool
  prometheus::Counter& connection_timeouts;   // header, body, idle or write timeout
};

}  // namespace switchyard::gateway
