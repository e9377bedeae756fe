#include "gateway/http_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

namespace switchyard::gateway::testing {
namespace {

constexpr int kPatienceMs = 20000;

}  // namespace

std::vector<std::string> ClientResponse::events() const {
  std::vector<std::string> events;
  std::string_view rest = body;
  while (!rest.empty()) {
    const auto end = rest.find("\n\n");
    const auto event = rest.substr(0, end);
    if (event.starts_with("data: ")) events.emplace_back(event.substr(6));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 2);
  }
  return events;
}

HttpClient::HttpClient(std::uint16_t port, int receive_buffer) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer > 0)
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) close();
}

HttpClient::~HttpClient() { close(); }

void HttpClient::close(bool reset) {
  if (socket_ < 0) return;
  if (reset) {
    const linger abort{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  }
  ::close(socket_);
  socket_ = -1;
}

void HttpClient::finish_sending() { ::shutdown(socket_, SHUT_WR); }

bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd ready{socket_, POLLOUT, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
    const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void HttpClient::request(std::string_view method, std::string_view path, std::string_view body,
                         std::string_view extra_headers) {
  send(fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {}\r\n\r\n{}", method, path,
                   extra_headers, body.size(), body));
}

bool HttpClient::fill() {
  pollfd ready{socket_, POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
  char bytes[16384];
  const auto count = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (count <= 0) return false;
  received_.append(bytes, static_cast<std::size_t>(count));
  return true;
}

std::optional<std::string> HttpClient::line() {
  for (;;) {
    const auto end = received_.find("\r\n");
    if (end != std::string::npos) {
      std::string text = received_.substr(0, end);
      received_.erase(0, end + 2);
      return text;
    }
    if (!fill()) return std::nullopt;
  }
}

ClientResponse HttpClient::read_head() {
  ClientResponse response;
  const auto status = line();
  if (!status || status->size() < 12) return response;
  response.status = std::stoi(status->substr(9, 3));
  for (;;) {
    const auto header = line();
    if (!header || header->empty()) break;
    const auto colon = header->find(": ");
    std::string name = header->substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    response.headers[name] = header->substr(colon + 2);
  }
  return response;
}

ClientResponse HttpClient::read_response(bool body_expected) {
  ClientResponse response = read_head();
  if (!body_expected || response.status < 200 || response.status == 204) {
    response.complete = response.status != 0;
    return response;
  }
  if (const auto coding = response.headers.find("transfer-encoding");
      coding != response.headers.end() && coding->second == "chunked") {
    for (;;) {
      const auto size_line = line();
      if (!size_line) return response;
      const std::size_t size = std::stoul(*size_line, nullptr, 16);
      while (received_.size() < size + 2) {
        if (!fill()) return response;
      }
      response.body += received_.substr(0, size);
      received_.erase(0, size + 2);
      if (size == 0) break;
    }
    response.complete = true;
  } else if (const auto length = response.headers.find("content-length"); length != response.headers.end()) {
    const std::size_t size = std::stoul(length->second);
    while (received_.size() < size) {
      if (!fill()) return response;
    }
    response.body = received_.substr(0, size);
    received_.erase(0, size);
    response.complete = true;
  } else {
    while (fill()) {
    }
    response.body = std::exchange(received_, {});
    response.complete = true;
  }
  return response;
}

bool HttpClient::read_until(std::string_view text, std::string& bytes) {
  for (;;) {
    bytes += std::exchange(received_, {});
    if (bytes.find(text) != std::string::npos) return true;
    if (!fill()) return false;
  }
}

ClientResponse HttpClient::roundtrip(std::string_view method, std::string_view path, std::string_view body,
                                     std::string_view extra_headers) {
  request(method, path, body, extra_headers);
  return read_response(method != "HEAD");
}

bool HttpClient::wait_for_close() {
  for (;;) {
    pollfd ready{socket_, POLLIN, 0};
    if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
    char bytes[16384];
    if (::recv(socket_, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

ClientResponse http(std::uint16_t port, std::string_view method, std::string_view path, std::string_view body,
                    std::string_view extra_headers) {
  HttpClient client(port);
  return client.roundtrip(method, path, body, extra_headers);
}

}  // namespace switchyard::gateway::testing
