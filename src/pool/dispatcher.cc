#include "pool/dispatcher.h"

#include <thread>

namespace switchyard::pool {

Result<std::unique_ptr<Dispatcher>> Dispatcher::create(const Options& options, std::uint64_t host_kv_bytes,
                                                       ModelCache& cache, std::unique_ptr<Trace> trace,
                                                       InstanceLost instance_lost) {
  auto dispatcher =
      std::unique_ptr<Dispatcher>(new Dispatcher(options, cache, std::move(trace), std::move(instance_lost)));
  auto host = HostKv::create(host_kv_bytes, options.slab_bytes);
  if (!host) return pass(host.error());
  dispatcher->host_ = *std::move(host);
  auto policy_options = options.policy_options;
  policy_options.host_kv_bytes = dispatcher->host_->capacity();
  auto policy = schedule::make_policy(options.policy, policy_options, dispatcher->costs_);
  if (!policy) return pass(policy.error());
  dispatcher->policy_ = *std::move(policy);
  return dispatcher;
}

Dispatcher::Dispatcher(const Options& options, ModelCache& cache, std::unique_ptr<Trace> trace,
                       InstanceLost instance_lost)
    : options_(options), cache_(cache), instance_lost_(std::move(instance_lost)), trace_(std::move(trace)) {}

Dispatcher::~Dispatcher() {
  // A callback of the cache that has begun holds `alive_`; it ends before what it uses goes.
  std::weak_ptr<bool> last = alive_;
  alive_.reset();
  while (!last.expired()) std::this_thread::yield();
}

void Dispatcher::attach(std::shared_ptr<Channel> channel) {
  const std::lock_guard lock(mutex_);
  channel_ = std::move(channel);
}

}  // namespace switchyard::pool
