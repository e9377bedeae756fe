// One connection of the control channel: its socket, its buffers and, where it is used, its TLS. Knows bytes,
// not their meaning. The worker's.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "switchyard/time.h"
#include "transfer/control_handshake.h"
#include "transfer/control_plane.h"
#include "transfer/control_record.h"
#include "transfer/tls_stream.h"

namespace switchyard::transfer {

// A numeric address and port. Errors: invalid.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  static Result<SocketAddress> parse(const std::string& host, std::uint16_t port);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::string host() const;  // without the port
  std::uint16_t port() const;
};

struct ControlLink {
  static constexpr std::size_t kRoomForMessages = 256 << 10;  // unsent bytes above which no message is taken
  static constexpr std::size_t kRoomForReplies = 1 << 20;     // beyond the messages: to what is read

  enum class State : std::uint8_t {
    dialling,          // until the socket is connected
    proving,           // greetings and proofs
    securing,          // TLS
    awaiting_welcome,  // we have said hello
    awaiting_hello,    // it has not
    welcoming,         // nothing goes out before the welcome
    open,
    leaving,  // it is refused: what it sends is thrown away until it has read why
  };

  LinkId id = kNoLink;
  int socket = -1;
  State state = State::dialling;
  bool dialled = false;
  bool wants_write = false;
  bool reading = true;
  TimePoint handshake_deadline{};
  TimePoint last_heard{};
  TimePoint last_said{};
  SocketAddress other;
  std::size_t thrown_away = 0;  // bytes, while leaving
  std::optional<ControlHandshake> handshake;
  std::unique_ptr<TlsStream> tls;
  std::vector<std::byte> in;   // received, not yet a whole record
  std::vector<std::byte> out;  // to be sent, as it goes over the wire
  std::size_t sent = 0;        // of `out`
  Hello hello;                 // to send, when dialled

  std::size_t unsent() const { return out.size() - sent; }
  bool is_unproven() const { return !dialled && state != State::open; }
  void append(const Record& record);
  // Sends what the socket takes. False when the socket is broken; the next read says why.
  bool flush();
};

}  // namespace switchyard::transfer
