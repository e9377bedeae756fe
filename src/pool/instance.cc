#include "pool/instance.h"

#include <pthread.h>

#include <csignal>
#include <thread>

#include "base/log.h"

namespace switchyard::pool {
namespace {

constexpr std::uint32_t kMaxSequences = 64;
constexpr std::uint32_t kMaxStepTokens = 512;

// For a model of this context length.
std::size_t message_bytes(std::uint32_t context) {
  // The longest message is a Generate with a whole context of tokens, or a PrefillOrder with its blocks as
  // well.
  constexpr std::size_t kRest = 64 << 10;
  return kRest + std::size_t{context} * (sizeof(std::int32_t) + sizeof(std::uint32_t));
}

}  // namespace

EngineOptions pool_engine_options(const std::string& name, const std::string& fabric, std::uint32_t context,
                                  const std::string& shared_key, bool control_tls) {
  EngineOptions options;
  options.name = name;
  options.fabric = fabric;
  options.message_bytes = message_bytes(context);
  options.shared_key = shared_key;
  options.tls.enabled = control_tls;
  return options;
}

Result<std::unique_ptr<Instance>> Instance::create(const InstanceOptions& options,
                                                   std::shared_ptr<const model::ModelImage> image,
                                                   const MakeRuntime& make_runtime) {
  const model::ModelConfig& config = image->config();
  auto instance = std::unique_ptr<Instance>(new Instance());
  Instance* self = instance.get();
  auto engine = TransferEngine::open(pool_engine_options(options.name, options.fabric, config.context,
                                                         options.shared_key, options.control_tls));
  if (!engine) return pass(engine.error());
  self->engine_ = *std::move(engine);
  auto store = KvStore::create(*self->engine_, config, model::kv_layout(config),
                               {.kv_bytes = options.kv_bytes, .tail_slots = kMaxSequences});
  if (!store) return pass(store.error());
  self->store_ = *std::move(store);
  auto runtime =
      make_runtime(image, self->store_->memory(),
                   {.threads = options.threads, .max_rows = kMaxStepTokens, .max_logit_rows = kMaxSequences});
  if (!runtime) return pass(runtime.error());
  self->runtime_ = *std::move(runtime);

  const PeerKey supervisor = key_of(options.supervisor);
  self->channel_ = Channel::create(
      *self->engine_,
      [self](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
        self->worker_->handle(from, static_cast<MessageType>(type), payload);
      },
      [self, supervisor](const PeerAddress& peer, const Error& why) {
        if (key_of(peer) != supervisor) return self->worker_->peer_lost(peer);
        log::info("the supervisor has ended ({}); this instance ends too", why.message);
        self->stop();
      });
  const WorkerParts parts{.engine = *self->engine_,
                          .channel = *self->channel_,
                          .runtime = *self->runtime_,
                          .store = *self->store_,
                          .supervisor = options.supervisor,
                          .chunk_tokens = options.chunk_tokens,
                          .max_step_tokens = kMaxStepTokens,
                          .max_sequences = kMaxSequences};
  self->worker_ = options.role == Role::prefill ? make_prefill_worker(parts) : make_decode_worker(parts);

  const Hello hello{.name = options.name,
                    .role = options.role,
                    .image_hash = std::string(image->hash()),
                    .shape = self->store_->shape(),
                    .context = self->store_->context()};
  const Status said =
      self->channel_->send(options.supervisor, static_cast<std::uint8_t>(Hello::kType), serialize(hello));
  if (!said) return fail_at("telling the supervisor", said.error());
  log::info("{} instance is ready: {} KV blocks of {} tokens", to_string(options.role),
            self->store_->blocks().capacity(), model::kBlockTokens);
  return instance;
}

Instance::~Instance() {
  if (channel_) channel_->close();
  // Ends what is under way; its callbacks still reach the worker, which goes after it.
  engine_.reset();
}

Status run_instance(const InstanceOptions& options, const std::filesystem::path& model) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto image = model::ModelImage::open(model);
  if (!image) return pass(image.error());
  auto instance = Instance::create(options, *image);
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
