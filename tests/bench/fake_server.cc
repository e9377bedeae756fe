#include "bench/fake_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace switchyard::bench::testing {
namespace {

constexpr int kPatienceMs = 20000;

// False: the client has gone, or nothing came for long.
bool receive(int socket, std::string& bytes) {
  pollfd ready{socket, POLLIN, 0};
  if (poll(&ready, 1, kPatienceMs) <= 0) return false;
  char buffer[4096];
  const auto count = recv(socket, buffer, sizeof(buffer), 0);
  if (count <= 0) return false;
  bytes.append(buffer, static_cast<std::size_t>(count));
  return true;
}

}  // namespace

FakeServer::FakeServer(Script script) : script_(std::move(script)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  listen(listener_, 64);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  accepter_ = std::thread([this] {
    for (;;) {
      const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      const std::lock_guard lock(mutex_);
      threads_.emplace_back([this, socket] { serve(socket); });
    }
  });
}

FakeServer::~FakeServer() {
  shutdown(listener_, SHUT_RDWR);
  accepter_.join();
  close(listener_);
  for (std::thread& thread : threads_) thread.join();
}

void FakeServer::serve(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  std::string bytes;
  std::size_t head = std::string::npos;
  while ((head = bytes.find("\r\n\r\n")) == std::string::npos && receive(socket, bytes)) {
  }
  if (head != std::string::npos) {
    const std::size_t length_at = bytes.find("Content-Length: ");
    const std::size_t length =
        length_at < head ? std::strtoul(bytes.c_str() + length_at + 16, nullptr, 10) : 0;
    while (bytes.size() < head + 4 + length && receive(socket, bytes)) {
    }
    const std::size_t begin = bytes.find(' ') + 1;
    const Answer answer =
        script_(bytes.substr(begin, bytes.find(' ', begin) - begin), bytes.substr(head + 4));
    for (const std::string& piece : answer.pieces) {
      if (send(socket, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
    }
    if (answer.stall) {
      while (receive(socket, bytes)) {
      }
    }
    if (answer.reset) {
      const linger abort{1, 0};
      setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
    }
  }
  close(socket);
}

std::string whole(int status, const std::string& body, const std::string& headers) {
  return fmt::format("HTTP/1.1 {} Word\r\n{}Content-Length: {}\r\n\r\n{}", status, headers, body.size(),
                     body);
}

std::string stream_head() {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
}

std::string chunk(const std::string& bytes) { return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes); }

std::string stream_end() { return chunk("data: [DONE]\n\n") + "0\r\n\r\n"; }

std::string token_event(int tokens, bool last) {
  std::string ids;
  for (int i = 0; i < tokens; ++i) ids += fmt::format("{}{}", i == 0 ? "" : ",", i);
  return fmt::format("data: {{\"choices\":[{{\"text\":\"x\",\"token_ids\":[{}],\"finish_reason\":{}}}]}}\n\n",
                     ids, last ? "\"length\"" : "null");
}

std::vector<std::string> good_stream(int tokens) {
  std::vector<std::string> pieces = {stream_head()};
  for (int i = 1; i <= tokens; ++i) pieces.push_back(chunk(token_event(1, i == tokens)));
  pieces.push_back(stream_end());
  return pieces;
}

}  // namespace switchyard::bench::testing
