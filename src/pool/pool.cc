#include "pool/pool.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/units.h"
#include "memory/block_pool.h"
#include "model/image.h"
#include "model/kv_layout.h"
#include "model/runtime.h"
#include "pool/instance.h"

namespace switchyard::pool {
namespace {

constexpr Nanos kHousekeeping = std::chrono::seconds(1);
// Rows of a decode step, and tokens of a prefill of several prompts: what a CPU does in about a second.
constexpr std::uint32_t kMaxRows = 64;
constexpr std::uint32_t kMaxPrefillTokens = 2048;

struct Opened {
  const ModelSettings* settings;
  Result<std::shared_ptr<const model::ModelImage>> image;
};

// What instances and dispatcher agree on.
struct Sizes {
  std::uint64_t slab_bytes = 0;
  std::uint64_t berth_bytes = 0;
  std::uint64_t image_bytes = 0;  // of all models
};

std::uint64_t machine_memory() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

Result<std::vector<Opened>> open_models(const PoolConfig& config, const Pool::Progress& progress) {
  std::vector<Opened> opened;
  bool any = false;
  for (const ModelSettings& settings : config.models) {
    auto image = model::ModelImage::open(settings.path, [&](std::uint64_t done, std::uint64_t total) {
      if (progress) progress(settings.id, done, total);
    });
    if (image && config.cache_bytes != 0) {
      if (auto fits = check_budget(**image, config.cache_bytes); !fits) image = pass(fits.error());
    }
    any = any || image;
    opened.push_back({&settings, std::move(image)});
  }
  if (any) return opened;
  if (opened.empty()) return fail(ErrorCode::invalid, "no models to serve");
  return fail_at("model '" + opened.front().settings->id + "'", opened.front().image.error());
}

Result<Sizes> sizes_for(const PoolConfig& config, const std::vector<Opened>& models) {
  Sizes sizes{.berth_bytes = config.berth_bytes};
  std::vector<std::size_t> blocks;
  for (const Opened& model : models) {
    if (!model.image) continue;
    const std::uint64_t bytes = (*model.image)->bytes().size();
    if (config.berth_bytes == 0) sizes.berth_bytes = std::max(sizes.berth_bytes, bytes);
    sizes.image_bytes += (*model.image)->file().size();
    blocks.push_back(model::kv_layout((*model.image)->config()).block_bytes());
  }
  sizes.slab_bytes = choose_slab_bytes(blocks, config.kv_bytes);
  if (config.kv_bytes < sizes.slab_bytes) {
    return fail(ErrorCode::invalid, "kv_memory is {}: set it to {} or more", format_bytes(config.kv_bytes),
                setting_for(sizes.slab_bytes));
  }
  const std::uint64_t instances = config.prefill + config.decode + config.unified;
  const std::uint64_t each = config.kv_bytes + config.berths * sizes.berth_bytes;
  if (each > machine_memory() / instances) {
    return fail(ErrorCode::invalid,
                "{} of KV memory and {} berths of {}, for each of {} instances, are more than this machine's "
                "{}: give less with kv_memory, berths or berth_memory, or start fewer instances",
                format_bytes(config.kv_bytes), config.berths, format_bytes(sizes.berth_bytes), instances,
                format_bytes(machine_memory()));
  }
  return sizes;
}

std::vector<Supervisor::Process> processes_of(const PoolConfig& config, const Sizes& sizes,
                                              const std::filesystem::path& program,
                                              const PeerAddress& supervisor, const std::string& shared_key) {
  std::vector<Supervisor::Process> processes;
  const auto address = supervisor.serialize();
  const std::string hex = fmt::format("{:02x}", fmt::join(address, ""));
  const auto add = [&](Role role, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string name = fmt::format("{}-{}", to_string(role), i);
      processes.push_back({.name = name,
                           .role = role,
                           .command = {program.string(),   "instance",
                                       "--name",           name,
                                       "--role",           std::string(to_string(role)),
                                       "--fabric",         config.fabric,
                                       "--threads",        std::to_string(config.threads),
                                       "--kv-memory",      std::to_string(config.kv_bytes),
                                       "--kv-slab",        std::to_string(sizes.slab_bytes),
                                       "--berths",         std::to_string(config.berths),
                                       "--berth-memory",   std::to_string(sizes.berth_bytes),
                                       "--supervisor",     hex,
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

}  // namespace

Result<std::unique_ptr<Pool>> Pool::start(const PoolConfig& config, const std::filesystem::path& program,
                                          const Progress& progress) {
  if (auto valid = validate(config); !valid) return pass(valid.error());
  auto models = open_models(config, progress);
  if (!models) return pass(models.error());
  const auto sizes = sizes_for(config, *models);
  if (!sizes) return pass(sizes.error());
  std::unique_ptr<Trace> trace;
  if (!config.trace.empty()) {
    auto opened = Trace::open(config.trace);
    if (!opened) return pass(opened.error());
    trace = *std::move(opened);
  }

  auto pool = std::unique_ptr<Pool>(new Pool());
  Pool* self = pool.get();
  std::uint64_t cache_bytes = config.cache_bytes;
  if (cache_bytes == 0) cache_bytes = std::max(sizes->berth_bytes * 2, machine_memory() / 2);
  pool->cache_ = ModelCache::create({.budget_bytes = cache_bytes});
  schedule::PolicyOptions policy{.max_rows = kMaxRows, .max_prefill_tokens = kMaxPrefillTokens};
  policy.longest_quota = config.longest_quota;
  policy.admission = config.admission;
  auto dispatcher =
      Dispatcher::create({.policy = config.policy,
                          .policy_options = policy,
                          .max_queue = config.max_queue,
                          .slab_bytes = sizes->slab_bytes,
                          .kv_bytes = config.kv_bytes,
                          .berth_bytes = sizes->berth_bytes,
                          .berths = config.berths},
                         config.host_kv_bytes, *pool->cache_, std::move(trace),
                         [self](const std::string& instance, int process, const std::string& why) {
                           const std::lock_guard lock(self->supervisor_mutex_);
                           if (self->supervisor_) self->supervisor_->replace(instance, process, why);
                         });
  if (!dispatcher) return pass(dispatcher.error());
  pool->dispatcher_ = *std::move(dispatcher);
  Dispatcher* driver = pool->dispatcher_.get();

  // Only the processes of this run can talk to each other.
  auto shared_key = make_shared_key();
  if (!shared_key) return pass(shared_key.error());
  auto engine =
      TransferEngine::open(pool_engine_options("gateway", config.fabric, *shared_key, config.control_tls));
  if (!engine) return pass(engine.error());
  pool->engine_ = *std::move(engine);
  pool->channel_ = Channel::create(
      *pool->engine_,
      [driver](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
        driver->on_message(from, type, payload);
      },
      [driver](const PeerAddress& peer, const Error& why) { driver->on_peer_lost(peer, why); });
  driver->attach(pool->channel_);
  bool any = false;
  Error last{};
  for (Opened& model : *models) {
    const Status added = model.image ? driver->add_opened_model(*model.settings, *std::move(model.image))
                                     : driver->add_failed_model(*model.settings, model.image.error());
    any = any || (model.image && added);
    if (!added) last = added.error();
  }
  if (!any) return fail_at("no model can be served", last);

  auto processes = processes_of(config, *sizes, program, pool->engine_->address(), *shared_key);
  for (const auto& process : processes)
    driver->instance_changed(process.name, process.role, "starting", "", 0, 0);
  auto supervisor = std::make_unique<Supervisor>(
      std::move(processes), [driver](const Supervisor::Process& process, const std::string& state,
                                     const std::string& detail, int pid, std::uint64_t restarts) {
        driver->instance_changed(process.name, process.role, state, detail, pid, restarts);
      });
  {
    const std::lock_guard lock(pool->supervisor_mutex_);
    pool->supervisor_ = std::move(supervisor);
  }
  pool->housekeeper_ = std::thread([self] { self->housekeeping(); });
  return pool;
}

void Pool::housekeeping() {
  std::unique_lock lock(stop_mutex_);
  while (!stop_wanted_.wait_for(lock, kHousekeeping, [this] { return stopping_; })) dispatcher_->tick();
}

Pool::~Pool() {
  {
    const std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_wanted_.notify_all();
  if (housekeeper_.joinable()) housekeeper_.join();
  if (dispatcher_) dispatcher_->shut_down({ErrorCode::cancelled, "the server is stopping"});
  if (channel_) channel_->close();
  std::unique_ptr<Supervisor> supervisor;
  {
    const std::lock_guard lock(supervisor_mutex_);
    supervisor = std::move(supervisor_);
  }
  supervisor.reset();
  engine_.reset();
  cache_.reset();
}

}  // namespace switchyard::pool
