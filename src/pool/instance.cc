#include "pool/instance.h"

#include <pthread.h>

#include <csignal>
#include <thread>

#include "base/log.h"

namespace switchyard::pool {

EngineOptions pool_engine_options(const std::string& name, const std::string& fabric,
                                  const std::string& shared_key, bool control_tls) {
  EngineOptions options;
  options.name = name;
  options.fabric = fabric;
  options.message_bytes = Channel::kDatagramBytes;
  options.shared_key = shared_key;
  options.tls.enabled = control_tls;
  return options;
}

Result<std::unique_ptr<Instance>> Instance::create(const InstanceOptions& options, OpenImage open_image,
                                                   MakeRuntime make_runtime) {
  auto instance = std::unique_ptr<Instance>(new Instance());
  Instance* self = instance.get();
  auto engine = TransferEngine::open(
      pool_engine_options(options.name, options.fabric, options.shared_key, options.control_tls));
  if (!engine) return pass(engine.error());
  self->engine_ = *std::move(engine);
  auto memory = InstanceMemory::create(*self->engine_, options.kv_bytes, options.slab_bytes);
  if (!memory) return pass(memory.error());
  self->memory_ = *std::move(memory);
  auto workspace = model::RuntimeWorkspace::create(options.threads);
  if (!workspace) return fail_at("starting compute threads", workspace.error());

  const PeerKey dispatcher = key_of(options.supervisor);
  self->channel_ = Channel::create(
      *self->engine_,
      [self](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
        self->worker_->handle(from, type, payload);
      },
      [self, dispatcher](const PeerAddress& peer, const Error& why) {
        if (key_of(peer) != dispatcher) return self->worker_->peer_lost(peer, why);
        log::info("the dispatcher has ended ({}); this instance ends too", why.message);
        self->stop();
      });
  auto worker = Worker::create(
      {.engine = *self->engine_,
       .channel = *self->channel_,
       .memory = *self->memory_,
       .berths = {.berths = options.berths,
                  .berth_bytes = options.berth_bytes,
                  .kv_memory = self->memory_->memory(),
                  .runtime = {.threads = options.threads,
                              .max_rows = options.limits.max_step_tokens,
                              .max_logit_rows = options.limits.max_rows},
                  .open_image = open_image ? std::move(open_image) : OpenImage(model::ModelImage::parse),
                  .make_runtime =
                      make_runtime ? std::move(make_runtime) : MakeRuntime(model::Runtime::create),
                  .workspace = *std::move(workspace)},
       .dispatcher = options.supervisor,
       .limits = options.limits});
  if (!worker) return pass(worker.error());
  self->worker_ = *std::move(worker);

  const InstanceHello hello{.name = options.name,
                            .role = options.role,
                            .kv_bytes = self->memory_->bytes(),
                            .slab_bytes = self->memory_->slab_bytes(),
                            .berths = self->worker_->berths().count(),
                            .berth_bytes = self->worker_->berths().berth_bytes(),
                            .max_rows = options.limits.max_rows};
  const Status said = self->channel_->send(options.supervisor,
                                           static_cast<std::uint8_t>(InstanceHello::kType), serialize(hello));
  if (!said) return fail_at("telling the dispatcher", said.error());
  log::info("{} instance is ready: {} MiB of KV memory, {} berths of {} MiB", to_string(options.role),
            hello.kv_bytes >> 20, hello.berths, hello.berth_bytes >> 20);
  return instance;
}

Instance::~Instance() {
  if (channel_) channel_->close();
  // Ends what is under way; its callbacks still reach the worker, which goes after it.
  engine_.reset();
  worker_.reset();
}

Status run_instance(const InstanceOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto instance = Instance::create(options);
  if (!instance) return pass(instance.error());

  // Signals are taken by a thread of their own: a handler could do next to nothing.
  std::thread signal_thread([&instance, signals] {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0 && signal != SIGTERM) {
    }
    (*instance)->stop();
  });
  (*instance)->run();
  pthread_kill(signal_thread.native_handle(), SIGTERM);
  signal_thread.join();
  return {};
}

}  // namespace switchyard::pool
