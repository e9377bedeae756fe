#include "fabric/loopback.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace switchyard::fabric {
namespace {

constexpr int kPatience = 200;  // milliseconds

class Socket {
 public:
  explicit Socket(int family) : fd_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

bool is_loopback(const std::string& host) { return host.starts_with("127.") || host == "::1"; }

Status check_loopback(const std::string& host) {
  if (!is_loopback(host)) return {};
  const auto no = [&](const char* why) {
    return fail(ErrorCode::unsupported,
                "this machine does not reach itself at {}: {}; is the loopback interface up?", host, why);
  };
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (int code = getaddrinfo(host.c_str(), nullptr, &hints, &found); code != 0) return no(gai_strerror(code));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> keep(found, freeaddrinfo);
  const Socket listener(found->ai_family), caller(found->ai_family);
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  auto* const address = reinterpret_cast<sockaddr*>(&name);
  if (bind(listener.get(), found->ai_addr, found->ai_addrlen) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), address, &length) != 0)
    return no(strerror(errno));
  if (connect(caller.get(), address, length) == 0) return {};
  if (errno != EINPROGRESS) return no(strerror(errno));
  pollfd ready{.fd = caller.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, kPatience) != 1) return no("nothing answers");
  int error = 0;
  length = sizeof error;
  if (getsockopt(caller.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) return no(strerror(errno));
  return error == 0 ? Status{} : no(strerror(error));
}

}  // namespace switchyard::fabric
