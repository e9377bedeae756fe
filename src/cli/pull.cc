#include <CLI/CLI.hpp>
#include <memory>

#include "cli/commands.h"
#include "cli/default_model.h"
#include "cli/terminal.h"

namespace switchyard::cli {

void add_pull(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("pull", "Fetch the default model and check it");
  auto force = std::make_shared<bool>(false);
  command->add_flag("--force", *force, "Fetch it again even if it is there");
  command->callback([&chosen, force] {
    chosen = [force] {
      if (auto pulled = pull_default_model(*force); !pulled) return report(pulled.error());
      fmt::print("{}\n", default_model_path().string());
      return 0;
    };
  });
}

}  // namespace switchyard::cli
