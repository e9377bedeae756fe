// Rails and control channel of this machine, and what every engine is put together from.
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/random.h"
#include "fabric/loopback.h"
#include "transfer/control_channel.h"
#include "transfer/control_link.h"
#include "transfer/engine_core.h"

namespace switchyard {

using transfer::CounterTable;
using transfer::EngineRail;
using transfer::kNoIndex;

namespace {

constexpr std::size_t kMaxRequests = 1 << 16;
constexpr Nanos kLongestLimit = std::chrono::hours(24 * 365);  // of any time in EngineOptions

Status check(const EngineOptions& options) {
  // A peer's index has 16 bits in an immediate.
  if (options.max_transfers == 0 || options.max_transfers > (1u << 20) || options.max_counters == 0 ||
      options.max_counters > CounterTable::kMaxSlots || options.max_peers == 0 ||
      options.max_peers > (1u << 16) || options.message_slots == 0 ||
      options.message_bytes > (std::size_t{1} << 30)) {
    return fail(ErrorCode::invalid, "engine '{}': a limit of its options is zero or too large", options.name);
  }
  // They are added to the clock, and must not run over its end.
  for (const auto& [name, value] :
       {std::pair("heartbeat_interval", options.heartbeat_interval),
        std::pair("heartbeat_limit", options.heartbeat_limit),
        std::pair("connect_limit", options.connect_limit), std::pair("stall_limit", options.stall_limit),
        std::pair("path_rest", options.path_rest)}) {
    if (value <= Nanos::zero() || value > kLongestLimit) {
      return fail(ErrorCode::invalid, "engine '{}': {} has to be positive, and a year at most", options.name,
                  name);
    }
  }
  if (options.heartbeat_limit <= options.heartbeat_interval) {
    return fail(ErrorCode::invalid, "engine '{}': heartbeat_limit has to exceed heartbeat_interval",
                options.name);
  }
  return {};
}

// Peers are given it: it has to be one address, of this machine.
Status check_address(const std::string& what, const std::string& host) {
  auto address = transfer::SocketAddress::parse(host, 0);
  if (!address)
    return fail(ErrorCode::invalid, "{} '{}' is not an IP address; give one that this machine has", what,
                host);
  if (const std::string shown = address->host(); shown == "0.0.0.0" || shown == "::")
    return fail(
        ErrorCode::invalid,
        "{} '{}' means every address of this machine, and peers can reach none of that name; give one "
        "that it has",
        what, host);
  return {};
}

struct RailName {
  std::string fabric;
  std::string where;
};

Result<std::vector<RailName>> rail_names(const EngineOptions& options) {
  std::string list = options.fabric;
  if (list == "auto") {
    auto chosen = fabric::automatic_fabric(options.control_host);
    if (!chosen) return pass(chosen.error());
    list = *chosen;
    // Peers on this host are reached without the network, where that works.
    if (list != "shm") {
      for (const auto& report : fabric::list_fabrics(options.control_host)) {
        if (report.name == "shm" && report.usable) list = "shm," + list;
      }
    }
  }
  std::vector<RailName> names;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    const std::string item = list.substr(at, comma - at);
    const std::size_t sign = std::min(item.find('@'), item.size());
    if (sign == 0) return fail(ErrorCode::invalid, "'{}' does not name rails", options.fabric);
    RailName name{item.substr(0, sign), sign < item.size() ? item.substr(sign + 1) : std::string()};
    if (sign < item.size()) {
      if (name.fabric == "shm" || name.fabric == "efa")
        return fail(ErrorCode::invalid, "'{}': {} has no addresses or devices to choose from; write '{}'",
                    item, name.fabric, name.fabric);
      const auto ok = name.fabric == "verbs" ? Status{} : check_address("rail", name.where);
      if (!ok) return fail_at(fmt::format("'{}'", item), ok.error());
    }
    // Without a device, all that there are.
    const auto devices = name.where.empty() ? fabric::list_devices(name.fabric) : std::vector<std::string>();
    for (const std::string& device : devices) names.push_back({name.fabric, device});
    if (devices.empty()) names.push_back(std::move(name));
    at = comma + 1;
  }
  if (names.size() > transfer::kMaxRails)
    return fail(ErrorCode::invalid, "{} rails are more than {}", names.size(), transfer::kMaxRails);
  return names;
}

}  // namespace

EngineCore::EngineCore(const EngineOptions& options)
    : options_(options), deadlines_(options.max_transfers + options.max_counters + options.max_peers) {
  slots_.resize(options.max_transfers);
  peers_.resize(options.max_peers);
  for (std::uint32_t i = options.max_transfers; i-- > 0;) free_slots_.push_back(i);
  for (std::uint32_t i = 0; i < options.max_peers; ++i) free_peers_.push_back(i);
  commands_.reserve(2 * options.max_transfers);
  taken_commands_.reserve(2 * options.max_transfers);
  due_.reserve(options.max_transfers);
  running_.reserve(options.max_transfers);
  counters_ = std::make_shared<CounterTable>(options.max_counters);
}

EngineCore::~EngineCore() {
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

Result<std::shared_ptr<EngineCore>> EngineCore::open(const EngineOptions& options) {
  const std::string who = fmt::format("engine '{}'", options.name);
  if (auto ok = check(options); !ok) return pass(ok.error());
  if (auto ok = check_address("control_host", options.control_host); !ok) return fail_at(who, ok.error());
  if (auto ok = fabric::check_loopback(options.control_host); !ok) return fail_at(who, ok.error());
  auto names = rail_names(options);
  if (!names) return fail_at(who, names.error());
  EngineParts parts;
  std::string shown;
  for (const RailName& name : *names) {
    const bool is_device = name.fabric == "verbs";
    auto rail = fabric::open_fabric(
        name.fabric, {.host = is_device || name.where.empty() ? options.control_host : name.where,
                      .device = is_device ? name.where : std::string(),
                      .max_peers = options.max_peers});
    if (!rail) return fail_at(who, rail.error());
    parts.rails.push_back({name.fabric, name.where, std::move(*rail)});
    shown += (shown.empty() ? "" : ", ") + name.fabric + (name.where.empty() ? "" : "@" + name.where);
  }
  auto control = transfer::ControlChannel::open({.host = options.control_host,
                                                 .port = options.control_port,
                                                 .max_links = options.max_peers,
                                                 .message_bytes = options.message_bytes,
                                                 .heartbeat_interval = options.heartbeat_interval,
                                                 .heartbeat_limit = options.heartbeat_limit,
                                                 .connect_limit = options.connect_limit,
                                                 .shared_key = options.shared_key,
                                                 .tls = options.tls});
  if (!control) return fail_at(who, control.error());
  parts.control = std::move(*control);
  std::array<std::uint64_t, 3> words{};
  if (auto ok = fill_random(std::as_writable_bytes(std::span(words))); !ok) return fail_at(who, ok.error());
  parts.id = {words[0], words[1]};
  parts.epoch = words[2];
  auto core = assemble(options, std::move(parts));
  if (!core) return core;
  log::info("{}: fabric {}{}, control channel at {}:{}", who, shown,
            options.fabric == "auto" ? " (chosen automatically)" : "", options.control_host,
            (*core)->self_.control_port);
  return core;
}

Result<std::shared_ptr<EngineCore>> EngineCore::assemble(const EngineOptions& options, EngineParts parts) {
  if (auto ok = check(options); !ok) return pass(ok.error());
  if (parts.rails.empty() || parts.rails.size() > transfer::kMaxRails)
    return fail(ErrorCode::invalid, "engine '{}': it has to have 1 to {} rails", options.name,
                transfer::kMaxRails);
  std::shared_ptr<EngineCore> self(new EngineCore(options));
  self->control_ = std::move(parts.control);
  self->link_peers_.assign(self->control_->slots(), kNoIndex);
  self->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (self->wake_fd_ < 0)
    return fail(ErrorCode::exhausted, "engine '{}': eventfd: {}", options.name, strerror(errno));

  self->self_.engine_id = parts.id;
  self->self_.epoch = parts.epoch;
  self->self_.control_host = options.control_host;
  self->self_.control_port = self->control_->port();
  std::size_t requests = 0;
  for (EngineParts::Rail& part : parts.rails) {
    EngineRail& rail = self->rails_.emplace_back();
    rail.fabric = std::move(part.fabric);
    rail.device = std::move(part.device);
    rail.rail = std::move(part.rail);
    self->need_asking_ |= rail.rail->wait_fd() < 0;
    const auto& capabilities = rail.rail->capabilities();
    requests += capabilities.max_outstanding;
    self->self_.rails.push_back({rail.fabric, rail.rail->address(), capabilities.bytes_per_second});
  }
  self->control_->set_self(self->self_);
  self->requests_.resize(std::clamp<std::size_t>(requests, 1, kMaxRequests) + kSpareRequests);
  for (std::size_t i = self->requests_.size(); i-- > 0;)
    self->free_requests_.push_back(static_cast<std::uint32_t>(i));

  const std::size_t log_bytes = std::size_t{options.max_peers} * transfer::kArrivalLogBytes;
  auto log = Arena::create(2 * log_bytes);
  if (!log) return pass(log.error());
  self->log_memory_ = std::move(*log);
  auto region = self->register_region({self->log_memory_.base(), 2 * log_bytes});
  if (!region) return pass(region.error());
  self->log_region_ = std::move(*region);
  // The engine outlives it, and must not own itself.
  self->log_region_.state()->engine.reset();
  return self;
}

}  // namespace switchyard
