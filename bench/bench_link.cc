#include "bench_link.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace switchyard::bench {
namespace {

constexpr std::uint32_t kMaxFrame = 1u << 20;
constexpr Nanos kSendLimit = std::chrono::seconds(10);

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Addresses> resolve(const std::string& where, bool passive) {
  const std::size_t colon = where.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == where.size())
    return fail(ErrorCode::invalid, "'{}' is not HOST:PORT", where);
  std::string host = where.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string service = where.substr(colon + 1);
  std::uint16_t port = 0;  // getaddrinfo takes 65537 for 1
  if (const auto [end, error] = std::from_chars(service.data(), service.data() + service.size(), port);
      error != std::errc() || end != service.data() + service.size())
    return fail(ErrorCode::invalid, "'{}' is not HOST:PORT", where);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  if (int code = getaddrinfo(host.c_str(), service.c_str(), &hints, &found))
    return fail(ErrorCode::invalid, "'{}': {}", where, gai_strerror(code));
  return Addresses(found, freeaddrinfo);
}

}  // namespace

Link::~Link() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Link> Link::connect(const std::string& where) {
  auto addresses = resolve(where, false);
  if (!addresses) return pass(addresses.error());
  Link link(::socket((*addresses)->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{std::chrono::ceil<std::chrono::seconds>(kSendLimit).count(), 0};
  setsockopt(link.fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // of connect, too
  if (link.fd_ < 0 || ::connect(link.fd_, (*addresses)->ai_addr, (*addresses)->ai_addrlen) != 0)
    return fail(ErrorCode::io, "{} does not answer: {}; start 'bench transfer --serve' there", where,
                strerror(errno == EINPROGRESS ? ETIMEDOUT : errno));
  const int on = 1;
  setsockopt(link.fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return link;
}

Result<Link> Link::accept(const std::string& where, const std::function<void(std::uint16_t)>& bound) {
  auto addresses = resolve(where, true);
  if (!addresses) return pass(addresses.error());
  Link listener(::socket((*addresses)->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  sockaddr_storage self{};
  socklen_t length = sizeof self;
  if (listener.fd_ < 0 || setsockopt(listener.fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(listener.fd_, (*addresses)->ai_addr, (*addresses)->ai_addrlen) != 0 ||
      ::listen(listener.fd_, 1) != 0 ||
      getsockname(listener.fd_, reinterpret_cast<sockaddr*>(&self), &length) != 0) {
    return fail(ErrorCode::io, "cannot listen on {}: {}", where, strerror(errno));
  }
  if (bound) {
    bound(ntohs(self.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(self).sin6_port
                                           : reinterpret_cast<const sockaddr_in&>(self).sin_port));
  }
  Link link(::accept4(listener.fd_, nullptr, nullptr, SOCK_CLOEXEC));
  if (link.fd_ < 0) return fail(ErrorCode::io, "accept on {}: {}", where, strerror(errno));
  setsockopt(link.fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return link;
}

Status Link::transfer(std::span<char> bytes, bool out, TimePoint deadline) {
  while (!bytes.empty()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(std::max(deadline - monotonic_now(), Nanos::zero()));
    pollfd ready{fd_, static_cast<short>(out ? POLLOUT : POLLIN), 0};
    const int count = ::poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1 << 30)));
    if (count == 0) return fail(ErrorCode::timed_out, "the other side of the benchmark does not answer");
    if (count < 0 && errno == EINTR) continue;
    const ssize_t moved = out ? ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT)
                              : ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (moved <= 0) return fail(ErrorCode::peer_lost, "the other side of the benchmark has ended");
    bytes = bytes.subspan(static_cast<std::size_t>(moved));
  }
  return {};
}

Status Link::send(const nlohmann::json& message) {
  const std::string text = message.dump();
  const auto length = static_cast<std::uint32_t>(text.size());
  if (text.size() > kMaxFrame) return fail(ErrorCode::out_of_range, "a message of {} bytes", text.size());
  std::string frame(sizeof length, '\0');
  std::memcpy(frame.data(), &length, sizeof length);
  frame += text;
  return transfer(frame, true, monotonic_now() + kSendLimit);
}

Result<nlohmann::json> Link::receive(TimePoint deadline) {
  std::uint32_t length = 0;
  if (auto ok = transfer({reinterpret_cast<char*>(&length), sizeof length}, false, deadline); !ok)
    return pass(ok.error());
  if (length > kMaxFrame) return fail(ErrorCode::corrupt, "the other side is not a benchmark");
  std::string text(length, '\0');
  if (auto ok = transfer(text, false, deadline); !ok) return pass(ok.error());
  auto message = nlohmann::json::parse(text, nullptr, false);
  if (!message.is_object()) return fail(ErrorCode::corrupt, "the other side is not a benchmark");
  return message;
}

Result<nlohmann::json> Link::ask(const nlohmann::json& request, Nanos limit) {
  if (auto ok = send(request); !ok) return pass(ok.error());
  auto answer = receive(monotonic_now() + limit);
  if (!answer) return answer;
  if (const auto error = answer->find("error"); error != answer->end())
    return fail(ErrorCode::io, "the other side: {}", error->is_string() ? error->get<std::string>() : "?");
  return answer;
}

bool Link::readable() const {
  pollfd ready{fd_, POLLIN, 0};
  return ::poll(&ready, 1, 0) != 0;
}

std::string Link::local_host() const {
  sockaddr_storage self{};
  socklen_t length = sizeof self;
  char host[NI_MAXHOST];
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&self), &length) != 0 || self.ss_family == AF_UNIX ||
      getnameinfo(reinterpret_cast<sockaddr*>(&self), length, host, sizeof host, nullptr, 0,
                  NI_NUMERICHOST) != 0) {
    return "127.0.0.1";
  }
  return host;
}

Result<std::pair<Child, Link>> Child::start(const std::function<void(Link)>& body) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(ErrorCode::exhausted, "socketpair: {}", strerror(errno));
  Link here(ends[0]), there(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return fail(ErrorCode::exhausted, "fork: {}", strerror(errno));
  if (pid == 0) {
    // Not SIGKILL: libfabric removes its files in /dev/shm when it is asked to end.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    { const Link closed = std::move(here); }
    body(std::move(there));
    _exit(0);
  }
  Child child;
  child.pid_ = pid;
  return std::pair(std::move(child), std::move(here));
}

Child::~Child() {
  if (pid_ < 0) return;
  // Its link has been closed before, at which it ends; one that hangs does not hang its parent.
  for (int i = 0; i < 5000; ++i) {
    if (waitpid(pid_, nullptr, WNOHANG) != 0) return;
    ::poll(nullptr, 0, 1);
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

Result<std::vector<std::byte>> from_hex(const std::string& text) {
  auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    if (digit(text[i]) < 0 || digit(text[i + 1]) < 0)
      return fail(ErrorCode::corrupt, "not a hexadecimal text");
    bytes.push_back(static_cast<std::byte>(digit(text[i]) << 4 | digit(text[i + 1])));
  }
  return bytes;
}

}  // namespace switchyard::bench
