// The side channel between the two processes of a benchmark: framed JSON over a socket, a socket pair to a
// forked child or TCP to another host. Not part of what is measured. One thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::bench {

class Link {
 public:
  Link() = default;
  explicit Link(int fd) : fd_(fd) {}
  Link(Link&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Link& operator=(Link&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Link();

  // `where` is HOST:PORT. Errors: invalid, io.
  static Result<Link> connect(const std::string& where);
  // Waits for one connection, for as long as it takes; `bound` is told the port. Errors: invalid, io.
  static Result<Link> accept(const std::string& where, const std::function<void(std::uint16_t)>& bound = {});

  // Errors: peer_lost, timed_out; receive also corrupt.
  Status send(const nlohmann::json& message);
  Result<nlohmann::json> receive(TimePoint deadline);
  // Sends a request and takes its answer, an object without "error". Errors: also the answer's, as io.
  Result<nlohmann::json> ask(const nlohmann::json& request, Nanos limit = std::chrono::seconds(60));
  // Something to receive, or the end, is there.
  bool readable() const;
  // This end's address, where the link is TCP; else the loopback address.
  std::string local_host() const;

 private:
  Status transfer(std::span<char> bytes, bool out, TimePoint deadline);

  int fd_ = -1;
};

// A child process that runs `body` with its end of the link and exits; it dies with its parent. Call it
// before the process has other threads. Waits for the child's exit when it goes.
class Child {
 public:
  Child() = default;
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  ~Child();

  // Errors: exhausted.
  static Result<std::pair<Child, Link>> start(const std::function<void(Link)>& body);

 private:
  pid_t pid_ = -1;
};

// Bytes as text inside of JSON.
std::string to_hex(std::span<const std::byte> bytes);
// Errors: corrupt.
Result<std::vector<std::byte>> from_hex(const std::string& text);

}  // namespace switchyard::bench
