// Records of the control channel, as they travel over TCP: an eight-byte header, then the payload.
//
// A hello is the first record in one direction, a welcome or a reject the first in the other. Parsing checks
// everything; a record that does not parse ends its connection.
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
constexpr std::uint32_t kControlVersion = 1;
constexpr std::size_t kRecordHeaderBytes = 8;
constexpr std::size_t kMaxHelloBytes =
    PeerAddress::kMaxBytes + 128;  // before the handshake nothing is longer
constexpr std::size_t kMaxReasonBytes = 512;
constexpr std::size_t kMessageOverhead = 8;

struct Hello {
  PeerAddress from;
  std::array<std::uint64_t, 2> to_engine{};  // whom the sender believes to reach
  std::uint64_t to_epoch = 0;
  std::uint64_t message_bytes = 0;  // largest message that the sender takes
  std::uint32_t message_slots = 0;  // and how many unacknowledged
};
struct Welcome {
  std::uint64_t message_bytes = 0;
  std::uint32_t message_slots = 0;
};
struct Reject {
  enum class Why : std::uint32_t {
    denied = 1,
    already_connected = 2,
    exhausted = 3,
    unsupported = 4,
    invalid = 5
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

using Record = std::variant<Hello, Welcome, Reject, Heartbeat, Message, MessageAck, Goodbye>;

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
