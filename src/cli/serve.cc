// `switchyard serve`: the supervisor, the gateway and their instances, until Ctrl-C.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <memory>
#include <optional>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "gateway/gateway.h"
#include "pool/reload.h"

namespace switchyard::cli {
namespace {

constexpr Nanos kStopLimit = std::chrono::seconds(5);
constexpr Nanos kWatchInterval = std::chrono::seconds(1);
constexpr Nanos kLongWait = std::chrono::hours(1);

struct Arguments {
  PoolArguments pool;
  std::string config;
  std::string host;
  int port = -1;
};

// The file, and the command line over it.
Result<pool::ServeConfig> read_config(const Arguments& arguments) {
  pool::ServeConfig config;
  if (!arguments.config.empty()) {
    auto loaded = pool::load_config(arguments.config);
    if (!loaded) return pass(loaded.error());
    config = *std::move(loaded);
  }
  if (!arguments.host.empty()) config.host = arguments.host;
  if (arguments.port >= 0) config.port = static_cast<std::uint16_t>(arguments.port);
  if (auto applied = apply_options(arguments.pool, config.pool, config.defaults); !applied)
    return pass(applied.error());
  return config;
}

// Until a stop signal. With a configuration file SIGHUP reads it again, and so does, if it says so, a change
// of it.
void run(pool::Reloader* reloader, const Arguments& arguments, bool watch_file) {
  if (reloader == nullptr) return wait_for_stop();
  pool::FileWatch watch(arguments.config);
  while (true) {
    const int signal = next_signal(watch_file ? kWatchInterval : kLongWait);
    if (signal == SIGINT || signal == SIGTERM) return;
    if (signal == SIGHUP || (watch_file && watch.changed())) {
      log::info("reading {} again", arguments.config);
      static_cast<void>(reloader->reload());  // it logs what came of it
    }
  }
}

// Of those that can be asked.
std::string names_of(const std::vector<pool::ServedModel>& models) {
  constexpr std::size_t kMostNamed = 5;
  std::vector<std::string> names;
  for (const auto& model : models) {
    if (model.state != pool::ModelState::failed) names.push_back(model.id);
  }
  if (names.size() > kMostNamed) return fmt::format("{} models", names.size());
  return fmt::to_string(fmt::join(names, ", "));
}

Status serve(const Arguments& arguments) {
  hold_stop_signals();
  if (!arguments.config.empty()) hold_hangup();
  auto config = read_config(arguments);
  if (!config) return pass(config.error());
  const pool::ServeConfig as_read = *config;
  if (auto found = find_models(config->pool, config->defaults); !found) return found;
  auto pool = start_pool(config->pool);
  if (!pool) return pass(pool.error());
  gateway::GatewayControls controls{.catalogue = &(*pool)->catalogue(), .defaults = config->defaults};
  std::optional<pool::Reloader> reloader;
  if (!arguments.config.empty()) {
    reloader.emplace(
        pool::Reloader::Source{
            .read = [arguments] { return read_config(arguments); },
            .complete = [](pool::ServeConfig& read) { return find_models(read.pool, read.defaults); }},
        as_read, (*pool)->catalogue());
    controls.reloader = &*reloader;
  }
  auto gateway =
      gateway::Gateway::start({.host = config->host,
                               .port = config->port,
                               .api_keys = config->api_keys,
                               .admin_keys = config->admin_keys,
                               .limits = {.admission = {.key_rate = config->pool.admission.key_rate,
                                                        .max_waiting = config->pool.admission.max_waiting,
                                                        .max_queue = config->pool.max_queue}}},
                              (*pool)->generator(), controls);
  if (!gateway) return pass(gateway.error());
  if (auto ready = wait_ready(**pool); !ready) return ready;
  log::info("serving {} on http://{}:{} (OpenAI API under /v1); Ctrl-C stops",
            names_of((*pool)->generator().models()), config->host, (*gateway)->port());
  run(controls.reloader, arguments, config->watch);
  log::info("stopping");
  (*gateway)->stop(monotonic_now() + kStopLimit);
  return {};
}

}  // namespace

void add_serve(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("serve", "Serve models through the OpenAI API");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("-c,--config", arguments->config,
                      "YAML file; options on the command line go before it. SIGHUP reads its models again");
  command->add_option("--host", arguments->host, "Address to listen on (default: 127.0.0.1)");
  command->add_option("-p,--port", arguments->port, "Port to listen on; 0 takes a free one (default: 8000)")
      ->check(CLI::Range(0, 65535));
  add_pool_options(*command, arguments->pool);
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      log::start("serve");
      const auto status = serve(*arguments);
      // Ctrl-C is a server's usual end, whenever it comes.
      return status || status.error().code == ErrorCode::cancelled ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
