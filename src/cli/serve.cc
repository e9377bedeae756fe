// `switchyard serve`: the supervisor, the gateway and their instances, until Ctrl-C.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "gateway/gateway.h"

namespace switchyard::cli {
namespace {

constexpr Nanos kStopLimit = std::chrono::seconds(5);

struct Arguments {
  PoolArguments pool;
  std::string config;
  std::string host;
  int port = -1;
};

Status serve(const Arguments& arguments) {
  pool::ServeConfig config;
  if (!arguments.config.empty()) {
    auto loaded = pool::load_config(arguments.config);
    if (!loaded) return pass(loaded.error());
    config = *std::move(loaded);
  }
  if (!arguments.host.empty()) config.host = arguments.host;
  if (arguments.port >= 0) config.port = static_cast<std::uint16_t>(arguments.port);
  if (auto applied = apply(arguments.pool, config.pool); !applied) return applied;

  auto pool = start_pool(config.pool);
  if (!pool) return pass(pool.error());
  auto gateway = gateway::Gateway::start(
      {.host = config.host, .port = config.port, .api_keys = config.api_keys}, (*pool)->generator());
  if (!gateway) return pass(gateway.error());
  if (auto ready = wait_ready(**pool); !ready) {
    return ready.error().code == ErrorCode::cancelled ? Status{} : ready;
  }
  log::info("serving {} on http://{}:{} (OpenAI API under /v1); Ctrl-C stops",
            (*pool)->generator().models().front().id, config.host, (*gateway)->port());
  wait_for_stop();
  log::info("stopping");
  (*gateway)->stop(monotonic_now() + kStopLimit);
  return {};
}

}  // namespace

void add_serve(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("serve", "Serve a model through the OpenAI API");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("-c,--config", arguments->config,
                      "YAML file; options on the command line go before it");
  command->add_option("--host", arguments->host, "Address to listen on (default: 127.0.0.1)");
  command->add_option("-p,--port", arguments->port, "Port to listen on; 0 takes a free one (default: 8000)")
      ->check(CLI::Range(0, 65535));
  add_pool_options(*command, arguments->pool);
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      log::start("serve");
      const auto status = serve(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
