#include "gateway/metrics.h"

#include <fmt/format.h>
#include <prometheus/text_serializer.h>

#include <iterator>
#include <sstream>

namespace switchyard::gateway {
namespace {

constexpr std::size_t kMostModels = 2048;  // that were ever served; each costs some kilobytes
constexpr const char* kOther = "other";

prometheus::Counter& counter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Gauge& gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

const prometheus::Histogram::BucketBoundaries kFirstTokenSeconds{0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                                 0.5,   1,    2.5,   5,    10,  30};
const prometheus::Histogram::BucketBoundaries kBetweenTokensSeconds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                                    0.1,   0.25,   0.5,   1,    2.5};
const prometheus::Histogram::BucketBoundaries kRequestSeconds{0.005, 0.025, 0.1, 0.5, 1,  2.5,
                                                              5,     10,    30,  60,  120};

}  // namespace

Metrics::Metrics()
    : requests_(prometheus::BuildCounter()
                    .Name("switchyard_http_requests_total")
                    .Help("HTTP requests answered, by route and status code")
                    .Register(registry_)),
      request_seconds_(prometheus::BuildHistogram()
                           .Name("switchyard_http_request_seconds")
                           .Help("From a request's headers to the end of its answer")
                           .Register(registry_)),
      connections(gauge(registry_, "switchyard_http_connections", "Open client connections")),
      connections_accepted(
          counter(registry_, "switchyard_http_connections_total", "Client connections accepted")),
      connections_refused(counter(registry_, "switchyard_http_connections_refused_total",
                                  "Client connections turned away because too many were open")),
      requests_in_flight(
          gauge(registry_, "switchyard_http_requests_in_flight", "Generation requests under way")),
      streams(gauge(registry_, "switchyard_http_streams", "Open event streams")),
      client_disconnects(counter(registry_, "switchyard_client_disconnects_total",
                                 "Generations cancelled because their client went away")),
      slow_clients_dropped(counter(registry_, "switchyard_slow_clients_dropped_total",
                                   "Streams closed because their client did not read them")),
      queue_rejects(counter(registry_, "switchyard_queue_rejects_total",
                            "Requests answered with 429 because a queue was full")),
      connection_timeouts(counter(registry_, "switchyard_http_timeouts_total",
                                  "Connections closed by a header, body, idle or write timeout")) {}

void Metrics::count_request(std::string_view route, int status, double seconds) {
  requests_.Add({{"route", std::string(route)}, {"code", fmt::to_string(status)}}).Increment();
  request_seconds_.Add({{"route", std::string(route)}}, kRequestSeconds).Observe(seconds);
}

ModelMetrics Metrics::for_model(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (const auto known = models_.find(id); known != models_.end()) return known->second;
  const bool full = models_.size() >= kMostModels;
  const std::string name = full ? kOther : id;
  if (const auto known = models_.find(name); known != models_.end()) return known->second;
  const prometheus::Labels labels{{"model", name}};
  ModelMetrics metrics;
  metrics.prompt_tokens = &prometheus::BuildCounter()
                               .Name("switchyard_prompt_tokens_total")
                               .Help("Prompt tokens of accepted requests")
                               .Register(registry_)
                               .Add(labels);
  metrics.completion_tokens = &prometheus::BuildCounter()
                                   .Name("switchyard_completion_tokens_total")
                                   .Help("Tokens generated for clients")
                                   .Register(registry_)
                                   .Add(labels);
  metrics.time_to_first_token = &prometheus::BuildHistogram()
                                     .Name("switchyard_time_to_first_token_seconds")
                                     .Help("From a request's acceptance to its first token")
                                     .Register(registry_)
                                     .Add(labels, kFirstTokenSeconds);
  metrics.time_between_tokens = &prometheus::BuildHistogram()
                                     .Name("switchyard_time_between_tokens_seconds")
                                     .Help("From one token of a request to the next")
                                     .Register(registry_)
                                     .Add(labels, kBetweenTokensSeconds);
  models_.emplace(name, metrics);
  return metrics;
}

std::string Metrics::text(std::vector<prometheus::MetricFamily> others) const {
  auto families = registry_.Collect();
  families.insert(families.end(), std::make_move_iterator(others.begin()),
                  std::make_move_iterator(others.end()));
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

}  // namespace switchyard::gateway
