// The `switchyard` program.
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <exception>
#include <new>
#include <system_error>

#include "base/system_limits.h"
#include "cli/commands.h"

namespace {

// SIGINT and SIGTERM, as the kernel has a set of signals.
constexpr unsigned long kStopSignals = 1UL << (SIGINT - 1) | 1UL << (SIGTERM - 1);

// Before the constructors of any library: one of them answers Ctrl-C with an exit status of its own, and
// takes a fifth of a second. What comes meanwhile waits until main() knows whom it is for. Nothing is
// initialised yet, so this is a system call and no more.
[[gnu::no_sanitize("address", "thread", "undefined")]] void hold_stop_signals_early(int, char**, char**) {
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kStopSignals, nullptr, sizeof(kStopSignals));
}
[[gnu::used,
  gnu::section(".preinit_array")]] void (*const kBeforeLibraries)(int, char**,
                                                                  char**) = hold_stop_signals_early;

void release_stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

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
  // A server stops in order from its first moment on.
  if (!app.got_subcommand("serve")) release_stop_signals();
  try {
    return chosen();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "switchyard: {}\n", switchyard::error_text(ENOMEM));
    return 1;
  } catch (const std::system_error& error) {
    const bool limit = error.code() == std::errc::too_many_files_open;
    fmt::print(stderr, "switchyard: {}\n", limit ? switchyard::error_text(EMFILE) : error.what());
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "switchyard: {}\n", error.what());
    return 1;
  }
}
