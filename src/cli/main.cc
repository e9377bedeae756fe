// The `switchyard` program.
#include <CLI/CLI.hpp>

#include "cli/commands.h"

int main(int argc, char** argv) {
  using namespace switchyard::cli;
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
  add_bench(app, chosen);
  add_instance(app, chosen);
  CLI11_PARSE(app, argc, argv);
  return chosen();
}
