#include "pool/instance.h"

#include <pthread.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "base/log.h"
#include "model/image.h"
#include "model/runtime.h"
#include "pool/channel.h"
#include "pool/kv_store.h"
#include "pool/worker.h"

namespace switchyard::pool {
namespace {

constexpr std::uint32_t kMaxSequences = 64;
constexpr std::uint32_t kMaxStepTokens = 512;

}  // namespace

std::size_t pool_message_bytes(std::uint32_t context) {
  // The longest message is a Generate with a whole context of tokens, or a PrefillOrder with its blocks as
  // well.
  constexpr std::size_t kRest = 64 << 10;
  return kRest + std::size_t{context} * (sizeof(std::int32_t) + sizeof(std::uint32_t));
}

Status run_instance(const InstanceOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto image = model::ModelImage::open(options.model);
  if (!image) return pass(image.error());
  const model::ModelConfig& config = (*image)->config();

  auto engine = TransferEngine::open(
      {.name = options.name, .fabric = options.fabric, .message_bytes = pool_message_bytes(config.context)});
  if (!engine) return pass(engine.error());
  auto store = KvStore::create(**engine, config, model::kv_layout(config),
                               {.kv_bytes = options.kv_bytes, .tail_slots = kMaxSequences});
  if (!store) return pass(store.error());
  auto runtime = model::Runtime::create(
      *image, (*store)->memory(),
      {.threads = options.threads, .max_rows = kMaxStepTokens, .max_logit_rows = kMaxSequences});
  if (!runtime) return pass(runtime.error());

  std::unique_ptr<Worker> worker;
  const PeerKey supervisor = key_of(options.supervisor);
  auto channel = Channel::create(
      **engine,
      [&worker](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
        worker->handle(from, static_cast<MessageType>(type), payload);
      },
      [&worker, supervisor](const PeerAddress& peer, const Error& why) {
        if (key_of(peer) == supervisor) {
          log::info("the supervisor has ended ({}); this instance ends too", why.message);
          worker->stop();
        } else {
          worker->peer_lost(peer);
        }
      });
  const WorkerParts parts{.engine = **engine,
                          .channel = *channel,
                          .runtime = **runtime,
                          .store = **store,
                          .supervisor = options.supervisor,
                          .max_step_tokens = kMaxStepTokens,
                          .max_sequences = kMaxSequences};
  worker = options.role == Role::prefill ? make_prefill_worker(parts) : make_decode_worker(parts);

  // Signals are taken by a thread of their own: a handler could do next to nothing.
  std::thread signal_thread([&worker, signals] {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0 && signal != SIGTERM) {
    }
    worker->stop();
  });

  const Hello hello{.name = options.name,
                    .role = options.role,
                    .image_hash = std::string((*image)->hash()),
                    .shape = (*store)->shape(),
                    .context = (*store)->context()};
  const Status said =
      channel->send(options.supervisor, static_cast<std::uint8_t>(Hello::kType), serialize(hello));
  if (!said) worker->stop();
  log::info("{} instance is ready: {} KV blocks of {} tokens", to_string(options.role),
            (*store)->blocks().capacity(), model::kBlockTokens);
  worker->run();

  channel->close();
  pthread_kill(signal_thread.native_handle(), SIGTERM);
  signal_thread.join();
  // Ends what is under way; its callbacks still reach the worker, which goes after it.
  engine->reset();
  return said ? Status{} : fail_at("telling the supervisor", said.error());
}

}  // namespace switchyard::pool
