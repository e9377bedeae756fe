// The `switchyard` program.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>

#include "base/descriptor_limit.h"
#include "cli/commands.h"

namespace {

// Libraries that are loaded with the program may have installed handlers of their own, which hide what a
// process died of and write files where it stands.
void restore_signals() {
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGINT, SIGTERM})
    std::signal(signal, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace switchyard::cli;
  restore_signals();
  switchyard::raise_descriptor_limit();
  CLI::App app(
      "Switchyard serves large language models from separate prefill and decode processes and moves their "
      "state between them.",
      "switchyard");
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  app.require_subcommand(1);
  Chosen chosen;
  add_serve(app, chosen);
  add_generate(app, chosen);
  add_pull(app, chosen);
  add_inspect(app, chosen);
  add_doctor(app, chosen);
  add_simulate(app, chosen);
  add_plan(app, chosen);
  add_profile(app, chosen);
  add_bench(app, chosen);
  add_simtest(app, chosen);
  add_instance(app, chosen);
  CLI11_PARSE(app, argc, argv);
  try {
    return chosen();
  } catch (const std::exception& error) {
    fmt::print(stderr, "switchyard: {}\n", error.what());
    return 1;
  }
}
