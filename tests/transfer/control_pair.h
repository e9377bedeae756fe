// Control channels without engines: a handler that writes down what happens, two channels that are polled in
// turn, and a raw socket that says anything.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "transfer/control_channel.h"

namespace switchyard::testing {

inline const std::string kSharedKey = "a key that both sides have, of 42 bytes...";

inline transfer::Introduction introduction() {
  transfer::Introduction self;
  self.message_bytes = 1000;
  self.message_slots = 2;
  return self;
}

// Takes everybody in.
struct Witness : transfer::ControlPlane::Handler {
  std::vector<transfer::LinkId> open;
  std::vector<std::string> messages;
  std::vector<std::uint64_t> acks;
  std::vector<transfer::PathRecord> paths;
  std::vector<Error> closed;
  int hellos = 0;
  int tried = 0;

  std::variant<transfer::Introduction, transfer::Reject> on_hello(transfer::LinkId link,
                                                                  const transfer::Hello&) override {
    ++hellos;
    open.push_back(link);
    return introduction();
  }
  void on_open(transfer::LinkId link, const transfer::Introduction&) override { open.push_back(link); }
  void on_message(transfer::LinkId, std::span<const std::byte> message) override {
    messages.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
  }
  void on_ack(transfer::LinkId, std::uint64_t id) override { acks.push_back(id); }
  void on_path(transfer::LinkId, const transfer::PathRecord& record) override { paths.push_back(record); }
  void on_closed(transfer::LinkId, const Error& why, std::optional<transfer::Reject::Why>) override {
    closed.push_back(why);
  }
};

// A channel, its handler, and who it is.
struct Station {
  std::unique_ptr<transfer::ControlChannel> channel;
  Witness witness;
  PeerAddress self;

  explicit Station(transfer::ControlChannel::Options options = {}) {
    if (options.host.empty()) options.host = "127.0.0.1";
    if (options.heartbeat_interval == Nanos::zero())
      options.heartbeat_interval = std::chrono::milliseconds(100);
    if (options.heartbeat_limit == Nanos::zero()) options.heartbeat_limit = std::chrono::seconds(20);
    if (options.connect_limit == Nanos::zero()) options.connect_limit = std::chrono::seconds(20);
    auto opened = transfer::ControlChannel::open(options);
    if (!opened) {
      ADD_FAILURE() << opened.error().message;
      std::abort();
    }
    channel = *std::move(opened);
    static std::uint64_t next = 1;
    self.engine_id = {next++, 7};
    self.epoch = next++;
    self.control_host = options.host;
    self.control_port = channel->port();
    self.rails.push_back({"net", std::vector<std::byte>(16, std::byte{0x5a}), 0});
    channel->set_self(self);
  }
  void poll() { channel->poll(monotonic_now(), witness); }
  transfer::LinkId dial(const Station& other) {
    return channel->dial(other.self, introduction(), monotonic_now()).value();
  }
};

// Polls the stations until `holds`; false when patience ends.
template <class Holds>
bool poll_until(std::initializer_list<Station*> stations, Holds holds) {
  const TimePoint deadline = monotonic_now() + std::chrono::seconds(20);
  while (!holds()) {
    if (monotonic_now() >= deadline) return false;
    for (Station* station : stations) station->poll();
  }
  return true;
}

// A connection to a control port, that says what it wants.
class RawPeer {
 public:
  explicit RawPeer(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawPeer() { ::close(socket_); }
  RawPeer(const RawPeer&) = delete;
  bool connected() const { return connected_; }
  // Never waits; returns how many bytes went.
  std::size_t say(std::span<const std::byte> bytes) {
    const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return count < 0 ? 0 : static_cast<std::size_t>(count);
  }
  void say(const transfer::Record& record) {
    std::vector<std::byte> bytes;
    append_record(bytes, record);
    say(bytes);
  }
  // Takes what is there; never waits.
  void listen() {
    std::byte buffer[4096];
    ssize_t count;
    while ((count = recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
      heard_.insert(heard_.end(), buffer, buffer + count);
    if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) closed_ = true;
  }
  bool closed() {
    listen();
    return closed_;
  }
  // The next whole record that came, if any.
  std::optional<transfer::Record> next() {
    listen();
    const auto rest = std::span<const std::byte>(heard_).subspan(taken_);
    auto header = transfer::parse_header(rest, 1 << 20);
    if (!header || !*header || rest.size() < transfer::kRecordHeaderBytes + (*header)->payload_bytes)
      return std::nullopt;
    auto record = transfer::parse_record(
        (*header)->type, rest.subspan(transfer::kRecordHeaderBytes, (*header)->payload_bytes));
    taken_ += transfer::kRecordHeaderBytes + (*header)->payload_bytes;
    return record ? std::optional(std::move(*record)) : std::nullopt;
  }
  const std::vector<std::byte>& heard() const { return heard_; }

 private:
  int socket_;
  bool connected_ = false;
  bool closed_ = false;
  std::vector<std::byte> heard_;
  std::size_t taken_ = 0;
};

}  // namespace switchyard::testing
