// Two processes, on one host or two, that write to each other over a rail: correctness first, then speed,
// then the death of one. For comparing a rail with its network's own tools, and for joined guests.
//
//   rail_pair listen  ADDRESS FABRIC[@DEVICE] [BYTES...]
//   rail_pair connect ADDRESS FABRIC[@DEVICE] [BYTES...]
//
// ADDRESS is where the listener is, and reached at, by TCP. With sizes, the connecting side prints the rate
// of each.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "fabric/rail_spec.h"
#include "switchyard/time.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint16_t kPort = 18519;
constexpr std::size_t kMemory = 16u << 20;
constexpr std::chrono::seconds kPatience{60};

[[noreturn]] void quit(const std::string& why) {
  std::fprintf(stderr, "rail_pair: %s\n", why.c_str());
  std::exit(1);
}

int join(bool listening, const std::string& address) {
  sockaddr_in there{};
  there.sin_family = AF_INET;
  there.sin_port = htons(kPort);
  if (inet_pton(AF_INET, address.c_str(), &there.sin_addr) != 1) quit("not an address: " + address);
  auto* where = reinterpret_cast<sockaddr*>(&there);
  const timeval patience{.tv_sec = kPatience.count(), .tv_usec = 0};
  const TimePoint deadline = monotonic_now() + kPatience;
  while (monotonic_now() < deadline) {
    const int joined = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(joined, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (listening) {
      const int yes = 1;
      setsockopt(joined, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      if (bind(joined, where, sizeof there) != 0 || ::listen(joined, 1) != 0) quit(strerror(errno));
      const int accepted = accept(joined, nullptr, nullptr);
      close(joined);
      if (accepted < 0) quit("nobody connects");
      setsockopt(accepted, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      return accepted;
    }
    if (::connect(joined, where, sizeof there) == 0) return joined;
    close(joined);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  quit("nobody listens");
}

void tell(int socket, std::span<const std::byte> bytes) {
  ByteWriter writer;
  writer.write_vector(bytes);
  if (send(socket, writer.bytes().data(), writer.bytes().size(), MSG_NOSIGNAL) < 0) quit("the peer is gone");
}

std::vector<std::byte> hear(int socket) {
  std::uint32_t size = 0;
  if (recv(socket, &size, sizeof size, MSG_WAITALL) != sizeof size || size > 4096) quit("the peer is gone");
  std::vector<std::byte> bytes(size);
  if (size != 0 && recv(socket, bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size))
    quit("the peer is gone");
  return bytes;
}

class Pair {
 public:
  Pair(int socket, const std::string& rail) : socket_(socket), bytes_(kMemory) {
    auto opened = open_rail(rail, 0);
    if (!opened) quit(opened.error().message);
    rail_ = *opened;
    auto registered = rail_->register_memory({bytes_.data(), bytes_.size()});
    if (!registered) quit(registered.error().message);
    memory_ = std::move(*registered);
    tell(socket_, rail_->address());
    auto end = rail_->add_peer(hear(socket_));
    if (!end) quit(end.error().message);
    peer_ = end->peer;
    tell(socket_, end->token);
    if (auto joined = rail_->connect_peer(peer_, hear(socket_)); !joined) quit(joined.error().message);
    ByteWriter keys;
    keys.write(memory_->remote_address());
    keys.write(memory_->remote_key());
    tell(socket_, keys.bytes());
    const auto theirs = hear(socket_);
    ByteReader reader(theirs);
    target_ = reader.read<std::uint64_t>();
    key_ = reader.read<std::uint64_t>();
  }

  // Polls until it is true. Sleeps where there has been nothing for a while: there may be only one processor.
  void until(const std::function<bool()>& done) {
    const TimePoint deadline = monotonic_now() + kPatience;
    std::array<Completion, 32> some;
    int quiet = 0;
    while (!done()) {
      const std::size_t count = rail_->poll(some);
      for (std::size_t i = 0; i < count; ++i) {
        if (some[i].kind == Completion::Kind::arrived) arrived_ = some[i].immediate + 1;
        if (some[i].kind != Completion::Kind::arrived) ++finished_;
        if (some[i].kind == Completion::Kind::failed) failure_ = some[i];
      }
      quiet = count == 0 ? quiet + 1 : 0;
      if (quiet > 100 && rail_->wait_fd() >= 0 && rail_->prepare_sleep()) {
        pollfd bell{.fd = rail_->wait_fd(), .events = POLLIN};
        poll(&bell, 1, 1000);
      } else if (count == 0) {
        sched_yield();
      }
      if (monotonic_now() > deadline) quit("time is up");
    }
  }

  void write(std::size_t bytes, std::uint32_t count) {
    finished_ = 0;
    std::uint32_t posted = 0;
    const std::uint64_t pieces = kMemory / bytes;
    until([&] {
      for (std::uint32_t batch = 1; batch != 0 && posted < count && posted - finished_ < 16;) {
        const std::uint64_t offset = posted % pieces * bytes;
        const WriteRequest request{.source = bytes_.data() + offset,
                                   .source_memory = memory_.get(),
                                   .bytes = bytes,
                                   .target_address = target_ + offset,
                                   .target_key = key_,
                                   .has_immediate = true,
                                   .immediate = posted};
        batch = static_cast<std::uint32_t>(rail_->post(peer_, {&request, 1}));
        posted += batch;
      }
      return finished_ == count || failure_.error != 0;
    });
  }

  void expect_arrivals(std::uint32_t count) {
    until([&] { return arrived_ == count; });
    arrived_ = 0;
  }

  std::vector<std::byte>& bytes() { return bytes_; }
  const Completion& failure() const { return failure_; }
  std::string why() const { return rail_->describe_error(failure_.error); }
  std::size_t longest() const { return rail_->capabilities().max_write_bytes; }
  void say() { tell(socket_, {}); }
  void wait() { hear(socket_); }

 private:
  int socket_;
  std::vector<std::byte> bytes_;
  std::shared_ptr<Fabric> rail_;
  std::unique_ptr<LocalMemory> memory_;
  PeerId peer_ = 0;
  std::uint64_t target_ = 0, key_ = 0;
  std::uint32_t finished_ = 0, arrived_ = 0;
  Completion failure_;
};

std::byte pattern(std::size_t i) { return static_cast<std::byte>(i * 7 + i / 251); }
std::uint32_t rounds(std::size_t bytes) {
  return static_cast<std::uint32_t>(std::clamp<std::size_t>((64u << 20) / bytes, 64, 2000));
}

int run(bool listening, Pair& pair, const std::vector<std::size_t>& sizes) {
  constexpr std::size_t kPiece = 100'000;
  constexpr std::uint32_t kPieces = 100;
  if (listening) {
    pair.expect_arrivals(kPieces);
    for (std::size_t i = 0; i < kPiece * kPieces; ++i)
      if (pair.bytes()[i] != pattern(i)) quit("byte " + std::to_string(i) + " is wrong");
    pair.say();
    for (const std::size_t size : sizes) {
      pair.expect_arrivals(rounds(size));
      pair.say();
    }
    // Dies without a word.
    _exit(0);
  }
  for (std::size_t i = 0; i < pair.bytes().size(); ++i) pair.bytes()[i] = pattern(i);
  pair.write(kPiece, kPieces);
  if (pair.failure().error != 0) quit("a write failed: " + pair.why());
  pair.wait();
  for (const std::size_t size : sizes) {
    const TimePoint start = monotonic_now();
    pair.write(size, rounds(size));
    pair.wait();
    const double seconds = std::chrono::duration<double>(monotonic_now() - start).count();
    std::printf("%8zu bytes: %9.1f MB/s\n", size, static_cast<double>(size) * rounds(size) / seconds / 1e6);
    std::fflush(stdout);
  }
  // The peer is dead, or about to be: a write fails, though some before may still get through.
  const TimePoint start = monotonic_now();
  while (pair.failure().error == 0) pair.write(8, 1);
  std::printf("dead peer: %s after %.2f s\n", pair.why().c_str(),
              std::chrono::duration<double>(monotonic_now() - start).count());
  return pair.failure().refused ? 1 : 0;
}

}  // namespace
}  // namespace switchyard::fabric

int main(int count, char** arguments) {
  using namespace switchyard::fabric;
  const std::vector<std::string> given(arguments + 1, arguments + count);
  if (given.size() < 3 || (given[0] != "listen" && given[0] != "connect"))
    quit("usage: rail_pair listen|connect ADDRESS FABRIC[@DEVICE] [BYTES...]");
  const bool listening = given[0] == "listen";
  std::vector<std::size_t> sizes;
  for (std::size_t i = 3; i < given.size(); ++i) sizes.push_back(std::strtoul(given[i].c_str(), nullptr, 10));
  Pair pair(join(listening, given[1]), given[2]);
  for (const std::size_t size : sizes)
    if (size == 0 || size > pair.longest()) quit("a size must be 1 to " + std::to_string(pair.longest()));
  return run(listening, pair, sizes);
}
