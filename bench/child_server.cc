#include "child_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

namespace switchyard::bench {
namespace {

constexpr Nanos kPoll = std::chrono::milliseconds(10);
constexpr Nanos kKillLimit = std::chrono::seconds(5);
constexpr std::streamoff kLastWords = 2000;

// Between fork and exec: system calls alone.
[[noreturn]] void become(char* const* arguments, int output, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  setpgid(0, 0);
  // A shell that starts something in the background lets it ignore Ctrl-C.
  for (const int number : {SIGINT, SIGTERM, SIGPIPE}) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execvp(arguments[0], arguments);
  _exit(127);
}

}  // namespace

Result<std::unique_ptr<ChildServer>> ChildServer::start(std::vector<std::string> command,
                                                        const std::filesystem::path& log) {
  if (command.empty() || command.front().empty())
    return fail(ErrorCode::invalid, "there is no server command to run");
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (output < 0) return fail(ErrorCode::io, "{}: cannot be written: {}", log.string(), std::strerror(errno));
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  // A signal that stop() sends at once waits until the child has its own dispositions.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) become(arguments.data(), output, parent);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(output);
  if (pid < 0) return fail(ErrorCode::io, "{} cannot be started: {}", command.front(), std::strerror(errno));
  setpgid(pid, pid);  // also here: stop() may come before the child has done it
  return std::unique_ptr<ChildServer>(new ChildServer(pid, log));
}

ChildServer::~ChildServer() { stop(kKillLimit); }

bool ChildServer::running() {
  if (pid_ == 0) return false;
  int status = 0;
  const pid_t done = waitpid(pid_, &status, WNOHANG);
  if (done == 0) return true;
  if (done == pid_) exit_status_ = status;
  pid_ = 0;
  return false;
}

void ChildServer::stop(Nanos limit) {
  if (!running()) return;
  const pid_t group = pid_;
  kill(pid_, SIGINT);
  const auto wait = [&](Nanos patience) {
    for (const TimePoint end = monotonic_now() + patience; running() && monotonic_now() < end;) {
      std::this_thread::sleep_for(kPoll);
    }
  };
  wait(limit);
  if (pid_ == 0) return;
  kill(-group, SIGKILL);
  wait(kKillLimit);
}

std::string ChildServer::last_words() const {
  std::string how;
  if (pid_ == 0) {
    how = WIFSIGNALED(exit_status_)          ? fmt::format("ended by signal {}", WTERMSIG(exit_status_))
          : WEXITSTATUS(exit_status_) == 127 ? "could not be run: is there such a program?"
                                             : fmt::format("ended with status {}", WEXITSTATUS(exit_status_));
  } else {
    how = "is running";
  }
  std::ifstream file(log_, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : 0;
  std::string words(static_cast<std::size_t>(std::min(size, kLastWords)), '\0');
  file.seekg(size - static_cast<std::streamoff>(words.size()));
  file.read(words.data(), static_cast<std::streamsize>(words.size()));
  while (words.ends_with('\n')) words.pop_back();
  return words.empty() ? how : how + "; it said:\n" + words;
}

Result<std::uint16_t> free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool good = socket >= 0 && bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                    getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int error = errno;
  if (socket >= 0) close(socket);
  if (!good) return fail(ErrorCode::io, "no free port: {}", std::strerror(error));
  return ntohs(address.sin_port);
}

}  // namespace switchyard::bench
