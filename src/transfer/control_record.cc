#include "transfer/control_record.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "fabric/fabric.h"
#include "transfer/arrival_log.h"

namespace switchyard::transfer {
namespace {

constexpr std::size_t kIndexOfMessage = 4;
static_assert(std::is_same_v<std::variant_alternative_t<kIndexOfMessage, Record>, Message>);

void write(ByteWriter& writer, const Introduction& self) {
  writer.write(self.message_bytes);
  writer.write(self.message_slots);
  writer.write(self.log_offset);
  writer.write(self.session);
  writer.write(self.peer_index);
  writer.write(static_cast<std::uint16_t>(self.log.size()));
  for (const RegionKey::Rail& rail : self.log) {
    writer.write(rail.address);
    writer.write(rail.key);
  }
}
void write(ByteWriter& writer, const Hello& hello) {
  writer.write_vector(std::span<const std::byte>(hello.from.serialize()));
  writer.write(hello.to_engine);
  writer.write(hello.to_epoch);
  write(writer, hello.self);
}
void write(ByteWriter& writer, const Welcome& welcome) { write(writer, welcome.self); }
void write(ByteWriter& writer, const Reject& reject) {
  writer.write(reject.why);
  writer.write_string(std::string_view(reject.reason).substr(0, kMaxReasonBytes));
}
void write(ByteWriter&, const Heartbeat&) {}
void write(ByteWriter& writer, const Message& message) {
  writer.write(message.id);
  writer.write_bytes(message.bytes);
}
void write(ByteWriter& writer, const MessageAck& ack) { writer.write(ack.id); }
void write(ByteWriter& writer, const Goodbye& goodbye) {
  writer.write_string(std::string_view(goodbye.reason).substr(0, kMaxReasonBytes));
}
void write(ByteWriter& writer, const PathRecord& path) {
  writer.write(path.kind);
  writer.write(path.sender_rail);
  writer.write(path.receiver_rail);
  writer.write(path.incarnation);
  writer.write_vector(std::span<const std::byte>(path.token));
  writer.write_string(std::string_view(path.reason).substr(0, kMaxReasonBytes));
  writer.write_vector(std::span<const std::uint16_t>(path.counted));
}
void write(ByteWriter& writer, const Greeting& greeting) {
  writer.write(kControlMagic);
  writer.write(greeting.version);
  writer.write(greeting.security);
  writer.write(greeting.nonce);
}
void write(ByteWriter& writer, const Proof& proof) { writer.write(proof.mac); }

Result<Introduction> parse_introduction(ByteReader& reader) {
  Introduction self;
  self.message_bytes = reader.read<std::uint64_t>();
  self.message_slots = reader.read<std::uint32_t>();
  self.log_offset = reader.read<std::uint64_t>();
  self.session = reader.read<std::uint32_t>();
  self.peer_index = reader.read<std::uint16_t>();
  const auto rails = reader.read<std::uint16_t>();
  if (!reader.ok() || rails > kMaxRails) return fail(ErrorCode::corrupt, "an introduction that is cut off");
  for (std::uint16_t i = 0; i < rails; ++i) {
    const auto address = reader.read<std::uint64_t>();
    self.log.push_back({address, reader.read<std::uint64_t>()});
    if (self.log.back().address + self.log_offset < address)
      return fail(ErrorCode::corrupt, "an introduction whose log runs over the end of the address space");
  }
  return self;
}

Result<PathRecord> parse_path(ByteReader& reader) {
  PathRecord path;
  path.kind = static_cast<PathRecord::Kind>(reader.read<std::uint8_t>());
  path.sender_rail = reader.read<std::uint16_t>();
  path.receiver_rail = reader.read<std::uint16_t>();
  path.incarnation = reader.read<std::uint32_t>();
  path.token = reader.read_vector<std::byte>();
  path.reason = reader.read_string();
  path.counted = reader.read_vector<std::uint16_t>();
  if (!reader.ok() || path.kind < PathRecord::Kind::open || path.kind > PathRecord::Kind::counted ||
      path.token.size() > fabric::PathEnd::kMaxTokenBytes || path.reason.size() > kMaxReasonBytes ||
      path.counted.size() > kArrivalWindow) {
    return fail(ErrorCode::corrupt, "not a record of a path");
  }
  return path;
}

Result<Record> parse_hello(ByteReader& reader) {
  Hello hello;
  auto from = PeerAddress::parse(reader.read_bytes(reader.read<std::uint32_t>()));
  if (!from) return pass(from.error());
  hello.from = std::move(*from);
  hello.to_engine = reader.read<std::array<std::uint64_t, 2>>();
  hello.to_epoch = reader.read<std::uint64_t>();
  auto self = parse_introduction(reader);
  if (!self) return pass(self.error());
  hello.self = std::move(*self);
  return hello;
}

}  // namespace

Result<std::optional<RecordHeader>> parse_header(std::span<const std::byte> bytes, std::size_t limit) {
  if (bytes.size() < kRecordHeaderBytes) return std::optional<RecordHeader>{};
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.type >= std::variant_size_v<Record> || header.zero != std::array<std::uint8_t, 3>{}) {
    return fail(ErrorCode::corrupt, "not a control record");
  }
  if (header.payload_bytes > limit) {
    return fail(ErrorCode::corrupt, "a control record of {} bytes is longer than {}", header.payload_bytes,
                limit);
  }
  return std::optional(header);
}

Result<Record> parse_record(std::uint8_t type, std::span<const std::byte> payload) {
  ByteReader reader(payload);
  Record record;
  switch (type) {
    case 0: {
      auto hello = parse_hello(reader);
      if (!hello) return hello;
      record = std::move(*hello);
      break;
    }
    case 1: {
      auto self = parse_introduction(reader);
      if (!self) return pass(self.error());
      record = Welcome{std::move(*self)};
      break;
    }
    case 2: {
      const auto why = reader.read<std::uint32_t>();
      if (why < 1 || why > 5) return fail(ErrorCode::corrupt, "a reject of unknown kind");
      record = Reject{static_cast<Reject::Why>(why), std::string(reader.read_string())};
      break;
    }
    case 3:
      record = Heartbeat{};
      break;
    case kIndexOfMessage: {
      const auto id = reader.read<std::uint64_t>();
      record = Message{id, reader.read_bytes(reader.remaining())};
      break;
    }
    case 5:
      record = MessageAck{reader.read<std::uint64_t>()};
      break;
    case 6:
      record = Goodbye{std::string(reader.read_string())};
      break;
    case 7: {
      auto path = parse_path(reader);
      if (!path) return pass(path.error());
      record = std::move(*path);
      break;
    }
    case 8: {
      const bool known = reader.read<std::uint64_t>() == kControlMagic;
      if (!known) return fail(ErrorCode::corrupt, "the other side is not a Switchyard engine");
      Greeting greeting;
      greeting.version = reader.read<std::uint32_t>();
      greeting.security = reader.read<std::uint8_t>();
      greeting.nonce = reader.read<Nonce>();
      record = greeting;
      break;
    }
    case 9:
      record = Proof{reader.read<Mac>()};
      break;
    default:
      return fail(ErrorCode::corrupt, "a control record of unknown type {}", type);
  }
  if (!reader.finished())
    return fail(ErrorCode::corrupt, "a control record of type {} has the wrong length", type);
  return record;
}

void append_record(std::vector<std::byte>& out, const Record& record) {
  ByteWriter writer;
  std::visit([&](const auto& value) { write(writer, value); }, record);
  const RecordHeader header{.payload_bytes = static_cast<std::uint32_t>(writer.bytes().size()),
                            .type = static_cast<std::uint8_t>(record.index())};
  const auto head = std::as_bytes(std::span(&header, 1));
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), writer.bytes().begin(), writer.bytes().end());
}

}  // namespace switchyard::transfer
