#include "transfer/control_link.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace switchyard::transfer {

Result<SocketAddress> SocketAddress::parse(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    return fail(ErrorCode::invalid, "control address '{}': {}; it has to be a numeric IP address", host,
                gai_strerror(code));
  }
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  freeaddrinfo(found);
  return address;
}

std::string SocketAddress::host() const {
  char text[INET6_ADDRSTRLEN] = "?";
  if (storage.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, text, sizeof text);
  } else if (storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, text, sizeof text);
  }
  return text;
}

std::uint16_t SocketAddress::port() const {
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port
                                             : reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

void ControlLink::append(const Record& record) {
  if (tls == nullptr) return append_record(out, record);
  std::vector<std::byte> plain;
  append_record(plain, record);
  // Without memory for TLS the record is lost, and with it the connection: its other side can read nothing
  // more.
  static_cast<void>(tls->send(plain, out));
}

bool ControlLink::flush() {
  while (unsent() != 0) {
    const ssize_t count = send(socket, out.data() + sent, unsent(), MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else {
      return false;
    }
  }
  if (unsent() == 0) {
    out.clear();
    sent = 0;
  } else if (sent > kRoomForMessages && sent > out.size() / 2) {
    // Not more often: a long message would be moved each time.
    out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(sent));
    sent = 0;
  }
  return true;
}

}  // namespace switchyard::transfer
