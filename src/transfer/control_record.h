// Records of the control channel, as they travel over TCP: an eight-byte header, then the payload.
//
// Greetings and proofs come first (control_handshake.h); then, where TLS is used, everything lies inside of
// it. A hello is the next record in one direction, a welcome the next in the other; a reject may stand in
// place of any of them. Parsing checks everything; a record that does not parse ends its connection.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/transfer.h"

namespace switchyard::transfer {

constexpr std::uint64_t kControlMagic = 0x31726f74636e7973;  // "syncTor1": what a stray client does not send
constexpr std::uint32_t kControlVersion = 3;
constexpr std::size_t kRecordHeaderBytes = 8;
constexpr std::size_t kMaxRails = 64;
constexpr std::size_t kMaxHelloBytes =
    PeerAddress::kMaxBytes + RegionKey::kMaxBytes + 256;  // before the handshake nothing is longer
constexpr std::size_t kMaxReasonBytes = 512;
constexpr std::size_t kMessageOverhead = 8;
constexpr std::size_t kMaxHandshakeBytes = 1024;  // before the other side has proven itself nothing is longer

using Nonce = std::array<std::uint8_t, 32>;
using Mac = std::array<std::uint8_t, 32>;  // HMAC-SHA256

// The first record in both directions.
struct Greeting {
  std::uint32_t version = kControlVersion;
  std::uint8_t security = 0;  // ControlSecurity::Mode; has to be the same on both sides
  Nonce nonce{};
};
struct Proof {
  Mac mac{};
};

// What each side tells the other at first.
struct Introduction {
  std::uint64_t message_bytes = 0;  // largest message that this side takes
  std::uint32_t message_slots = 0;  // and how many unacknowledged
  // Where the other side writes its arrival records (arrival_log.h): byte offset in the log's memory, its key
  // on every rail, and what the records and their immediates carry.
  std::uint64_t log_offset = 0;
  std::vector<RegionKey::Rail> log;
  std::uint32_t session = 0;
  std::uint16_t peer_index = 0;
};

struct Hello {
  PeerAddress from;
  std::array<std::uint64_t, 2> to_engine{};  // whom the sender believes to reach
  std::uint64_t to_epoch = 0;
  Introduction self;
};
struct Welcome {
  Introduction self;
};
struct Reject {
  enum class Why : std::uint32_t {
    denied = 1,
    already_connected = 2,
    exhausted = 3,
    unsupported = 4,
    invalid = 5,
    busy = 6,  // never sent: it closed the connection before the welcome, as one does that has too many
  };
  Why why = Why::invalid;
  std::string reason;
};
struct Heartbeat {};
struct Message {
  std::uint64_t id = 0;
  std::span<const std::byte> bytes;  // into the parsed payload
};
struct MessageAck {
  std::uint64_t id = 0;
};
struct Goodbye {
  std::string reason;
};

// A path joins one rail of each side. The side with the smaller engine id opens: `open` with the token of its
// end, answered by `accept` with the other's token and completed by `ready`. Either side may `close` a path,
// after it has removed its end; the other removes its own and answers `closed`: from then on nothing that was
// posted on the path lands any more, on either side. The first answers `closed` in turn, so that each knows
// what the other has counted by then. `counted` belongs to no path: it confirms arrivals.
struct PathRecord {
  enum class Kind : std::uint8_t { open = 1, accept = 2, ready = 3, close = 4, closed = 5, counted = 6 };
  Kind kind = Kind::open;
  std::uint16_t sender_rail = 0;
  std::uint16_t receiver_rail = 0;
  std::uint32_t incarnation = 0;  // counts the openings of this pair of rails, to tell late records apart
  std::vector<std::byte> token;   // of open and accept
  std::string reason;             // of close
  // The lower 15 bits of numbers of the other side's transfers that have been counted here (arrival_log.h):
  // of closed, as far as the log goes back; of counted, those since the last.
  std::vector<std::uint16_t> counted;
};

using Record = std::variant<Hello, Welcome, Reject, Heartbeat, Message, MessageAck, Goodbye, PathRecord,
                            Greeting, Proof>;

struct RecordHeader {
  std::uint32_t payload_bytes = 0;
  std::uint8_t type = 0;  // index in Record
  std::array<std::uint8_t, 3> zero{};
};
static_assert(sizeof(RecordHeader) == kRecordHeaderBytes);

// The header at the front of `bytes`, or nothing while fewer than kRecordHeaderBytes are there. `limit`
// bounds the payload. Errors: corrupt.
Result<std::optional<RecordHeader>> parse_header(std::span<const std::byte> bytes, std::size_t limit);

// Errors: corrupt.
Result<Record> parse_record(std::uint8_t type, std::span<const std::byte> payload);

// Appends the record, with its header, to `out`.
void append_record(std::vector<std::byte>& out, const Record& record);

}  // namespace switchyard::transfer
