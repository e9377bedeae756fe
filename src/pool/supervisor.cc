#include "pool/supervisor.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/log.h"
#include "base/system_limits.h"

namespace switchyard::pool {
namespace {

std::string describe_exit(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

// Between fork and exec only system calls are allowed: other threads may have held any lock.
[[noreturn]] void become(char* const* arguments, int secret, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  // A process group of its own: Ctrl-C goes to the supervisor, which ends its instances in order.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Sockets of this process must not stay open in that one, or its death would go unseen.
  unsigned first = Supervisor::kSecretDescriptor;
  if (secret >= 0) {
    // Onto itself it would stay close-on-exec.
    if (secret == Supervisor::kSecretDescriptor) secret = fcntl(secret, F_DUPFD, first + 1);
    if (dup2(secret, Supervisor::kSecretDescriptor) < 0) _exit(1);
    ++first;
  }
  syscall(SYS_close_range, first, ~0U, 0U);
  execv(arguments[0], arguments);
  _exit(127);
}

// A pipe that holds the secret and ends after it; -1 without one.
int pipe_of(const std::string& secret) {
  int ends[2];
  if (secret.empty() || secret.size() > Supervisor::kMaxSecretBytes || pipe2(ends, O_CLOEXEC) != 0) return -1;
  // An empty pipe takes that much at once.
  const bool whole = write(ends[1], secret.data(), secret.size()) == static_cast<ssize_t>(secret.size());
  close(ends[1]);
  if (whole) return ends[0];
  close(ends[0]);
  return -1;
}

}  // namespace

Supervisor::Supervisor(std::vector<Process> processes, Changed changed) : changed_(std::move(changed)) {
  for (Process& process : processes) children_.push_back({.process = std::move(process)});
  thread_ = std::thread([this] { run(); });
}

Supervisor::~Supervisor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Supervisor::replace(const std::string& name, int pid, const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    for (Child& child : children_) {
      if (child.process.name != name || child.pid != pid || pid == 0) continue;
      child.replace = true;
      child.why = why;
    }
    woken_ = true;
  }
  wake_.notify_one();
}

void Supervisor::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const TimePoint now = monotonic_now();
    TimePoint next = now + kWatchInterval;
    for (Child& child : children_) {
      if (child.pid != 0) reap(child);
      if (child.pid == 0 && child.start_at <= now) start(child);
      if (child.pid == 0) next = std::min(next, child.start_at);
    }
    wake_.wait_until(lock, next, [this] { return stopping_ || woken_; });
    woken_ = false;
  }
  stop_all();
}

void Supervisor::start(Child& child) {
  std::vector<char*> arguments;
  for (std::string& argument : child.process.command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const int secret = pipe_of(child.process.secret);
  const pid_t pid = fork();
  if (pid == 0) become(arguments.data(), secret, parent);
  if (secret >= 0) close(secret);
  child.replace = false;
  child.started = monotonic_now();
  if (pid < 0) {
    log::error("cannot start {}: {}", child.process.name, error_text(errno));
    child.start_at = child.started + kLongestPause;
    return;
  }
  child.pid = pid;
  changed_(child.process, child.restarts == 0 ? "starting" : "restarting", child.why, pid, child.restarts);
}

void Supervisor::reap(Child& child) {
  if (child.replace) kill(child.pid, SIGKILL);
  int status = 0;
  // After SIGKILL the end is near and certain.
  if (waitpid(child.pid, &status, child.replace ? 0 : WNOHANG) != child.pid) return;
  const TimePoint now = monotonic_now();
  if (!child.replace || child.why.empty()) child.why = describe_exit(status);
  const bool early = now - child.started < (child.replace ? kSettledIfReplaced : kSettled);
  child.pause = !early ? Nanos::zero() : std::clamp(child.pause * 2, kFirstPause, kLongestPause);
  // The first death is answered at once.
  child.start_at = child.restarts == 0 ? now : now + child.pause;
  ++child.restarts;
  child.pid = 0;
  child.replace = false;
  log::warn("{} {}; starting it again{}", child.process.name, describe_exit(status),
            child.start_at > now ? fmt::format(" in {:.1f} s", to_seconds(child.start_at - now)) : "");
  changed_(child.process, "restarting", child.why, 0, child.restarts);
}

void Supervisor::stop_all() {
  for (const Child& child : children_) {
    if (child.pid != 0) kill(child.pid, SIGTERM);
  }
  const TimePoint limit = monotonic_now() + kStopLimit;
  for (Child& child : children_) {
    while (child.pid != 0) {
      if (waitpid(child.pid, nullptr, WNOHANG) != 0) break;
      if (monotonic_now() > limit) {
        log::warn("{} does not stop; ending it", child.process.name);
        kill(child.pid, SIGKILL);
        waitpid(child.pid, nullptr, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    child.pid = 0;
  }
}

}  // namespace switchyard::pool
