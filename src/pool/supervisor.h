// Keeps instance processes running.
//
// Starts one process per instance, watches them, and starts again what dies: at once the first time, then
// with growing pauses while it keeps dying early. One thread does all of it; processes die with it, whatever
// happens.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pool/role.h"
#include "switchyard/time.h"

namespace switchyard::pool {

class Supervisor {
 public:
  struct Process {
    std::string name;
    Role role = Role::unified;
    std::vector<std::string> command;  // program and arguments
    // What the process finds to read at kSecretDescriptor: neither `ps` nor its environment shows it. At most
    // kMaxSecretBytes; empty: no such descriptor.
    std::string secret;
  };
  static constexpr int kSecretDescriptor = 3;
  static constexpr std::size_t kMaxSecretBytes = 4096;
  // Called on the supervisor's thread: an instance has another state ("starting", "restarting").
  using Changed = std::function<void(const Process& process, const std::string& state,
                                     const std::string& detail, int pid, std::uint64_t restarts)>;

  Supervisor(std::vector<Process> processes, Changed changed);
  // Asks every process to end, and ends those that do not within the limit.
  ~Supervisor();

  // Ends the process at once if it still runs as `pid`, and starts it again. Any thread.
  void replace(const std::string& name, int pid, const std::string& why);

 private:
  static constexpr Nanos kStopLimit = std::chrono::seconds(3);
  static constexpr Nanos kWatchInterval = std::chrono::milliseconds(500);
  // A death before this is early; and one on request before that, as of one that hangs from the beginning.
  static constexpr Nanos kSettled = std::chrono::seconds(10);
  static constexpr Nanos kSettledIfReplaced = std::chrono::seconds(30);
  static constexpr Nanos kFirstPause = std::chrono::milliseconds(250);
  static constexpr Nanos kLongestPause = std::chrono::seconds(10);

  struct Child {
    Process process;
    pid_t pid = 0;  // 0: not running
    TimePoint started{};
    TimePoint start_at{};
    Nanos pause{};
    std::uint64_t restarts = 0;
    std::string why;  // what replace() said
    bool replace = false;
  };

  void run();
  void start(Child& child);
  void reap(Child& child);
  void stop_all();

  const Changed changed_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Child> children_;
  bool stopping_ = false;
  bool woken_ = false;
  std::thread thread_;
};

}  // namespace switchyard::pool
