// The program's commands: each adds itself to the command line and returns the exit status when run.
#pragma once

#include <CLI/App.hpp>
#include <functional>

namespace switchyard::cli {

// Set by the command that was chosen; run after parsing.
using Chosen = std::function<int()>;

void add_serve(CLI::App& app, Chosen& chosen);
void add_generate(CLI::App& app, Chosen& chosen);
void add_pull(CLI::App& app, Chosen& chosen);
void add_inspect(CLI::App& app, Chosen& chosen);
void add_doctor(CLI::App& app, Chosen& chosen);
void add_simulate(CLI::App& app, Chosen& chosen);
void add_plan(CLI::App& app, Chosen& chosen);
void add_profile(CLI::App& app, Chosen& chosen);
void add_bench(CLI::App& app, Chosen& chosen);
// Into `bench`.
void add_bench_pool(CLI::App& bench, Chosen& chosen);
void add_simtest(CLI::App& app, Chosen& chosen);
// Not for users: what the supervisor starts its instances with.
void add_instance(CLI::App& app, Chosen& chosen);

}  // namespace switchyard::cli
