#include "pool/pool.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "memory/block_pool.h"
#include "model/image.h"
#include "model/kv_layout.h"
#include "model/runtime.h"
#include "pool/instance.h"

namespace switchyard::pool {
namespace {

std::vector<Supervisor::Process> processes_of(const PoolConfig& config, const std::filesystem::path& program,
                                              const PeerAddress& supervisor, const std::string& shared_key) {
  std::vector<Supervisor::Process> processes;
  const auto address = supervisor.serialize();
  const std::string hex = fmt::format("{:02x}", fmt::join(address, ""));
  const auto add = [&](Role role, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string name = fmt::format("{}-{}", to_string(role), i);
      processes.push_back({.name = name,
                           .role = role,
                           .command = {program.string(), "instance", "--name", name, "--role",
                                       std::string(to_string(role)), "--model", config.model.string(),
                                       "--fabric", config.fabric, "--threads", std::to_string(config.threads),
                                       "--kv-memory", std::to_string(config.kv_bytes), "--supervisor", hex,
                                       "--key-descriptor", std::to_string(Supervisor::kSecretDescriptor)},
                           .secret = shared_key});
      if (config.control_tls) processes.back().command.push_back("--control-tls");
    }
  };
  add(Role::prefill, config.prefill);
  add(Role::decode, config.decode);
  add(Role::unified, config.unified);
  return processes;
}

// Longest sequence that an instance's KV memory holds.
std::uint32_t served_context(const PoolConfig& config, const model::ModelConfig& model) {
  const std::size_t block_bytes = model::kv_layout(model).block_bytes();
  const std::uint64_t slab_bytes = choose_slab_bytes({&block_bytes, 1}, config.kv_bytes);
  const std::uint64_t blocks =
      config.kv_bytes / slab_bytes * (slab_bytes / kBlockUnit / block_units(block_bytes));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(model.context, blocks * model::kBlockTokens));
}

}  // namespace

Result<std::unique_ptr<Pool>> Pool::start(const PoolConfig& config, const std::filesystem::path& program) {
  if (auto valid = validate(config); !valid) return pass(valid.error());
  const std::uint64_t instances = config.prefill + config.decode + config.unified;
  const auto memory =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  if (config.kv_bytes > memory / instances) {
    return fail(ErrorCode::invalid,
                "kv_memory of {} MiB for each of {} instances is more than this machine's {} MiB",
                config.kv_bytes >> 20, instances, memory >> 20);
  }
  auto image = model::ModelImage::open(config.model);
  if (!image) return pass(image.error());
  const model::ModelConfig& model = (*image)->config();
  const std::uint32_t context = served_context(config, model);
  if (context == 0) {
    return fail(ErrorCode::invalid, "kv_memory of {} MiB holds not even {} tokens; give more",
                config.kv_bytes >> 20, 16 * model::kBlockTokens);
  }
  std::string name = config.served_name;
  if (name.empty()) {
    name = config.model.has_extension() ? config.model.stem().string() : config.model.filename().string();
  }

  auto pool = std::unique_ptr<Pool>(new Pool());
  // Only the processes of this run can talk to each other.
  auto shared_key = make_shared_key();
  if (!shared_key) return pass(shared_key.error());
  auto engine = TransferEngine::open(
      pool_engine_options("gateway", config.fabric, model.context, *shared_key, config.control_tls));
  if (!engine) return pass(engine.error());
  pool->engine_ = *std::move(engine);
  Pool* self = pool.get();
  pool->router_ = std::make_unique<Router>(
      Router::Options{
          .models = {{.id = name, .image = *image, .context = context, .created = std::time(nullptr)}},
          .max_queue = config.max_queue},
      [self](const std::string& instance, int process, const std::string& why) {
        const std::lock_guard lock(self->supervisor_mutex_);
        if (self->supervisor_) self->supervisor_->replace(instance, process, why);
      });
  Router* router = pool->router_.get();
  pool->channel_ = Channel::create(
      *pool->engine_,
      [router](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
        router->on_message(from, type, payload);
      },
      [router](const PeerAddress& peer, const Error& why) { router->on_peer_lost(peer, why); });
  router->attach(pool->channel_);

  auto processes = processes_of(config, program, pool->engine_->address(), *shared_key);
  for (const auto& process : processes)
    router->instance_changed(process.name, process.role, "starting", "", 0, 0);
  auto supervisor = std::make_unique<Supervisor>(
      std::move(processes), [router](const Supervisor::Process& process, const std::string& state,
                                     const std::string& detail, int pid, std::uint64_t restarts) {
        router->instance_changed(process.name, process.role, state, detail, pid, restarts);
      });
  const std::lock_guard lock(pool->supervisor_mutex_);
  pool->supervisor_ = std::move(supervisor);
  return pool;
}

Pool::~Pool() {
  if (router_) router_->shut_down({ErrorCode::cancelled, "the server is stopping"});
  if (channel_) channel_->close();
  std::unique_ptr<Supervisor> supervisor;
  {
    const std::lock_guard lock(supervisor_mutex_);
    supervisor = std::move(supervisor_);
  }
  supervisor.reset();
  engine_.reset();
}

Status Pool::wait_ready(TimePoint deadline) { return router_->wait_ready(deadline); }

}  // namespace switchyard::pool
