// A server that a benchmark starts for itself, in a process group of its own: Ctrl-C goes to the benchmark,
// which ends the server in order. It dies with the benchmark, whatever happens.
//
// Owned by the thread that starts it, which must live on. Its output goes to a file.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::bench {

class ChildServer {
 public:
  // `command`: a program (a path, or a name to be found in PATH) and its arguments. Errors: io.
  static Result<std::unique_ptr<ChildServer>> start(std::vector<std::string> command,
                                                    const std::filesystem::path& log);
  // As stop(), with a few seconds.
  ~ChildServer();
  ChildServer(const ChildServer&) = delete;
  ChildServer& operator=(const ChildServer&) = delete;

  bool running();
  // Asks it to end (SIGINT), and ends its whole group when it has not within the limit.
  void stop(Nanos limit);
  // How it ended, and the end of its output.
  std::string last_words() const;
  TimePoint started() const { return started_; }

 private:
  ChildServer(pid_t pid, std::filesystem::path log) : pid_(pid), log_(std::move(log)) {}

  pid_t pid_;  // 0: it has ended
  std::filesystem::path log_;
  int exit_status_ = 0;
  TimePoint started_ = monotonic_now();
};

// A port of 127.0.0.1 that was free a moment ago. Errors: io.
Result<std::uint16_t> free_port();

}  // namespace switchyard::bench
