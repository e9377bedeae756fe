#include "softroce/far_side.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "transfer/support.h"

namespace switchyard::testing {
namespace {

constexpr std::uint16_t kPort = 18520;
constexpr std::chrono::seconds kAnswer{60};  // everything here is emulated
constexpr std::size_t kLongestLine = 64u << 10;

[[noreturn]] void quit(const std::string& why) {
  std::fprintf(stderr, "engine_pair: %s\n", why.c_str());
  std::_Exit(1);
}

void limit_waits(int socket) {
  const timeval limit{.tv_sec = kAnswer.count(), .tv_usec = 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

sockaddr_in place(const std::string& host) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(kPort);
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) quit("not an address: " + host);
  return address;
}

bool say(int socket, const std::string& line) {
  const std::string whole = line + "\n";
  return send(socket, whole.data(), whole.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(whole.size());
}

// Empty when the other end is gone, or says nothing in time.
std::string hear(int socket) {
  std::string line;
  for (char c = 0; recv(socket, &c, 1, 0) == 1 && line.size() < kLongestLine;) {
    if (c == '\n') return line;
    line.push_back(c);
  }
  return {};
}

std::string compare(std::span<const std::byte> found, std::span<const std::byte> wanted, const char* what,
                    std::size_t index) {
  if (std::memcmp(found.data(), wanted.data(), wanted.size()) == 0) return {};
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = wanted.size(); i-- > 0;) {
    if (found[i] != wanted[i]) ++wrong, first = i;
  }
  return fmt::format("{} {}: {} bytes are wrong, the first at {}", what, index, wrong, first);
}

std::string check_bytes(std::span<const std::byte> memory, const std::string& verb, std::uint64_t seed) {
  std::vector<std::byte> source(kWhole);
  fill(source, seed);
  const auto target = memory.subspan(kGuard, kWhole);
  const std::vector<std::byte> nothing(kGuard);
  std::string wrong = compare(memory.first(kGuard), nothing, "guard", 0);
  if (wrong.empty()) wrong = compare(memory.last(kGuard), nothing, "guard", 1);
  if (wrong.empty() && verb == "whole") wrong = compare(target, source, "write", 0);
  if (verb == "pages") {
    const PagePermutation pages(seed);
    for (std::uint32_t i = 0; i < kPages && wrong.empty(); ++i) {
      wrong = compare(target.subspan(pages.target[i] * kPage, kPage),
                      std::span(source).subspan(pages.source[i] * kPage, kPage), "page", i);
    }
  }
  return wrong.empty() ? "yes" : wrong;
}

// The engine's process: answers until its end of the line closes.
void run_engine(int line, const std::string& host) {
  EngineOptions options;
  options.name = "far";
  options.control_host = host;
  Side side = make_side(kFourRails, kGuard + kWhole + kGuard, options);
  auto counter = side.engine->make_counter();
  if (!counter) quit(counter.error().message);
  say(line, to_hex(side.address().serialize()) + " " + to_hex(side.key().serialize()));
  for (std::string asked; !(asked = hear(line)).empty();) {
    std::istringstream words(asked);
    std::string verb;
    std::uint64_t seed = 0;
    words >> verb >> seed;
    if (verb == "counter") {
      const CounterId id = counter->id();
      say(line, fmt::format("{} {} {}", id.slot, id.generation, id.epoch));
    } else if (verb == "arrived") {
      say(line, std::to_string(counter->arrived()));
    } else if (verb == "whole" || verb == "pages") {
      say(line, check_bytes(side.bytes(), verb, seed));
    } else {
      say(line, "what?");
    }
  }
}

class EngineProcess {
 public:
  // Has one thread, so that its children need no other program.
  std::string start(const std::string& host) {
    kill();
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return strerror(errno);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(ends[0]);
      run_engine(ends[1], host);
      std::_Exit(0);
    }
    ::close(ends[1]);
    line_ = ends[0];
    limit_waits(line_);
    return hear(line_);
  }
  std::string ask(const std::string& question) {
    return line_ >= 0 && say(line_, question) ? hear(line_) : "there is no engine";
  }
  std::string kill() {
    if (pid_ <= 0) return "there is no engine";
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    ::close(line_);
    line_ = pid_ = -1;
    return "killed";
  }

 private:
  pid_t pid_ = -1;
  int line_ = -1;
};

// Nothing is told to anybody: the machine is gone between two instructions.
void power_off() {
  std::ofstream("/run/softroce/status") << "0\n";  // else that of a guest that has come to no end
  std::ofstream trigger("/proc/sysrq-trigger");
  trigger << "b" << std::flush;
}

}  // namespace

std::string switch_device(const std::string& name, bool up) {
  const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  std::string outcome = "ok";
  if (ioctl(any, SIOCGIFFLAGS, &request) != 0) {
    outcome = name + ": " + strerror(errno);
  } else {
    request.ifr_flags = static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    if (ioctl(any, SIOCSIFFLAGS, &request) != 0) outcome = name + ": " + strerror(errno);
  }
  ::close(any);
  return outcome;
}

int run_far_side(const std::string& host) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  limit_waits(listener);
  const sockaddr_in here = place(host);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0 || listen(listener, 1) != 0)
    quit(host + ": " + strerror(errno));
  const int near = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (near < 0) quit("nobody connects");
  limit_waits(near);
  EngineProcess engine;
  for (std::string asked; !(asked = hear(near)).empty();) {
    std::istringstream words(asked);
    std::string verb, name;
    words >> verb >> name;
    if (verb == "power") {
      say(near, "going");
      power_off();
      quit("the machine cannot be switched off");
    }
    const std::string answer = verb == "start"  ? engine.start(host)
                               : verb == "kill" ? engine.kill()
                               : verb == "down" ? switch_device(name, false)
                               : verb == "up"   ? switch_device(name, true)
                                                : engine.ask(asked);
    if (!say(near, answer)) break;
  }
  engine.kill();
  return 0;
}

FarSide::FarSide(const std::string& host) {
  const sockaddr_in there = place(host);
  for (const TimePoint deadline = monotonic_now() + kAnswer; monotonic_now() < deadline;) {
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    limit_waits(socket_);
    if (connect(socket_, reinterpret_cast<const sockaddr*>(&there), sizeof there) == 0) return;
    ::close(socket_);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  quit("nobody listens at " + host);
}

std::string FarSide::ask(const std::string& line) {
  const std::string answer = say(socket_, line) ? hear(socket_) : "";
  if (answer.empty()) ADD_FAILURE() << "the other guest does not answer: " << line;
  return answer;
}

void FarSide::start() {
  std::istringstream words(ask("start"));
  std::string address, key;
  words >> address >> key;
  auto parsed_address = PeerAddress::parse(from_hex(address));
  auto parsed_key = RegionKey::parse(from_hex(key));
  if (!parsed_address || !parsed_key) quit("the engine of the other guest did not start: " + words.str());
  address_ = *parsed_address;
  key_ = *parsed_key;
  std::istringstream counter(ask("counter"));
  counter >> counter_.slot >> counter_.generation >> counter_.epoch;
}

}  // namespace switchyard::testing
