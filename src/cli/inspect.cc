// `switchyard inspect`: what a checkpoint holds, and what serving it takes.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "model/checkpoint.h"
#include "model/describe.h"

namespace switchyard::cli {

void add_inspect(CLI::App& app, Chosen& chosen) {
  struct Arguments {
    std::string path;
    bool json = false;
  };
  auto* command = app.add_subcommand("inspect", "Show what a checkpoint holds and what serving it takes");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("CHECKPOINT", arguments->path, "GGUF or safetensors file, or a directory")->required();
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      const auto checkpoint = model::Checkpoint::open(arguments->path);
      if (!checkpoint) return report(checkpoint.error());
      const auto description = model::describe(**checkpoint);
      if (!description) return report(description.error());
      if (arguments->json) {
        fmt::print("{}\n", description->to_json().dump(2));
      } else {
        fmt::print("{}", description->to_text());
      }
      return 0;
    };
  });
}

}  // namespace switchyard::cli
