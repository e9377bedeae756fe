// The pool's numbers, in Prometheus' form.
#include <algorithm>

#include "pool/dispatcher.h"

namespace switchyard::pool {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Families {
 public:
  void count(const std::string& name, const std::string& help, double value, const Labels& labels = {}) {
    add(name, help, MetricType::Counter, labels).counter.value = value;
  }
  void gauge(const std::string& name, const std::string& help, double value, const Labels& labels = {}) {
    add(name, help, MetricType::Gauge, labels).gauge.value = value;
  }
  std::vector<prometheus::MetricFamily> take() {
    std::vector<prometheus::MetricFamily> result;
    for (auto& [name, family] : families_) result.push_back(std::move(family));
    return result;
  }

 private:
  ClientMetric& add(const std::string& name, const std::string& help, MetricType type, const Labels& labels) {
    auto& family = families_[name];
    family.name = "switchyard_" + name;
    family.help = help;
    family.type = type;
    family.metric.emplace_back().label = labels;
    return family.metric.back();
  }
  std::map<std::string, prometheus::MetricFamily> families_;
};

double number(auto value) { return static_cast<double>(value); }

}  // namespace

std::vector<prometheus::MetricFamily> Dispatcher::metrics() const {
  Families out;
  const ModelCache::Usage cache = cache_.usage();
  out.gauge("model_cache_budget_bytes", "Bytes that model images in shared memory may have",
            number(cache.budget_bytes));
  out.gauge("model_cache_bytes", "Bytes of model images in shared memory", number(cache.used_bytes));
  out.gauge("model_cache_held_bytes", "Part of them that is being read", number(cache.held_bytes));
  out.gauge("model_cache_images", "Model images in shared memory", number(cache.images));
  out.count("model_cache_hits_total", "Loads that found their image in shared memory", number(cache.hits));
  out.count("model_cache_misses_total", "Loads that had to read it", number(cache.misses));
  out.count("model_cache_evictions_total", "Images that left shared memory", number(cache.evictions));
  out.count("model_cache_failures_total", "Checkpoints or images that could not be read",
            number(cache.failures));

  const std::lock_guard lock(mutex_);
  const auto placed =
      std::ranges::count_if(requests_, [](const auto& entry) { return !entry.second.holders.empty(); });
  out.gauge("pool_requests_waiting", "Requests that no instance has at the moment",
            number(requests_.size()) - number(placed));
  out.gauge("pool_requests_placed", "Requests that an instance has", number(placed));
  out.count("pool_requests_total", "Requests submitted", number(submitted_));
  out.count("pool_requests_rejected_total", "Requests refused for lack of room or time", number(rejected_));
  out.count("pool_requests_failed_total", "Requests that failed", number(failed_));
  out.count("pool_replays_total", "Times that a request began again", number(replays_));
  out.gauge("pool_departures", "Attempts that instances have not let go of yet", number(departures_.size()));
  out.gauge("host_kv_bytes", "KV that waits in host memory", number(host_->used()));
  out.gauge("host_kv_capacity_bytes", "Host memory for KV", number(host_->capacity()));
  out.count("kv_drops_total", "Times that KV was given up for lack of memory", number(drops_));

  for (const auto& model : models_) {
    // One that is on its way out may have a successor of the same name: one series each.
    if (model->gone || find_model(model->settings.id) != model.get()) continue;
    const Labels labels = {{"model", model->settings.id}};
    out.gauge("model_ready", "1 if the model takes requests", model->state == ModelState::ready ? 1 : 0,
              labels);
    out.gauge("model_requests_waiting", "Requests without a first token", number(model->waiting), labels);
    out.gauge("model_requests_running", "Requests between first and last token", number(model->running),
              labels);
    out.count("model_requests_total", "Requests taken", number(model->requests), labels);
    out.count("model_requests_shed_total", "Requests refused", number(model->shed), labels);
    out.count("model_requests_failed_total", "Requests failed", number(model->failed), labels);
    out.count("model_tokens_total", "Tokens made", number(model->tokens), labels);
    out.count("model_tokens_in_time_total", "Tokens made within the model's targets",
              number(model->tokens_in_time), labels);
  }
  for (const auto& [name, instance] : instances_) {
    const Labels labels = {{"instance", name}, {"role", instance.status.role}};
    out.gauge("instance_up", "1 if the instance takes orders", instance.ready ? 1 : 0, labels);
    out.count("instance_restarts_total", "Times that the instance was started again",
              number(instance.status.restarts), labels);
    out.count("switches_total", "Times that another model took its turn", number(instance.switches), labels);
    out.count("switches_hidden_total", "Of them, those that waited for nothing",
              number(instance.hidden_switches), labels);
    out.count("switch_wait_seconds_total", "Time that instances stood still for a load", instance.switch_wait,
              labels);
    for (const Stats::Sample& sample : instance.stats.samples) {
      Labels all = labels;
      for (const auto& [label, value] : sample.labels) all.push_back({label, value});
      if (sample.counter) {
        out.count("instance_" + sample.name, sample.help, sample.value, all);
      } else {
        out.gauge("instance_" + sample.name, sample.help, sample.value, all);
      }
    }
  }
  return out.take();
}

}  // namespace switchyard::pool
