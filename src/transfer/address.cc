// The wire form of PeerAddress and RegionKey: a tag, fixed fields, counted lists; every count is bounded.
#include "base/bytes.h"
#include "switchyard/transfer.h"

namespace switchyard {
namespace {

constexpr std::uint32_t kAddressTag = 0x32617973;  // "sya2"
constexpr std::uint32_t kKeyTag = 0x316b7973;      // "syk1"
constexpr std::size_t kMaxRails = 64;
constexpr std::size_t kMaxNameBytes = 256;
constexpr std::size_t kMaxRailAddressBytes = 1024;

}  // namespace

std::vector<std::byte> PeerAddress::serialize() const {
  ByteWriter writer;
  writer.write(kAddressTag);
  writer.write(engine_id);
  writer.write(epoch);
  writer.write_string(control_host);
  writer.write(control_port);
  writer.write(static_cast<std::uint32_t>(rails.size()));
  for (const Rail& rail : rails) {
    writer.write_string(rail.fabric);
    writer.write_vector(std::span<const std::byte>(rail.address));
    writer.write(rail.bytes_per_second);
  }
  return writer.take();
}

Result<PeerAddress> PeerAddress::parse(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxBytes)
    return fail(ErrorCode::corrupt, "a peer address of {} bytes is too long", bytes.size());
  ByteReader reader(bytes);
  PeerAddress address;
  const auto tag = reader.read<std::uint32_t>();
  address.engine_id = reader.read<std::array<std::uint64_t, 2>>();
  address.epoch = reader.read<std::uint64_t>();
  address.control_host = reader.read_string();
  address.control_port = reader.read<std::uint16_t>();
  const auto rails = reader.read<std::uint32_t>();
  bool sound =
      reader.ok() && tag == kAddressTag && rails <= kMaxRails && address.control_host.size() <= kMaxNameBytes;
  for (std::uint32_t i = 0; sound && i < rails; ++i) {
    Rail rail;
    rail.fabric = reader.read_string();
    rail.address = reader.read_vector<std::byte>();
    rail.bytes_per_second = reader.read<std::uint64_t>();
    sound = reader.ok() && rail.fabric.size() <= kMaxNameBytes && rail.address.size() <= kMaxRailAddressBytes;
    address.rails.push_back(std::move(rail));
  }
  if (!sound || !reader.finished()) {
    return fail(ErrorCode::corrupt, "{} bytes are not a peer address of this version", bytes.size());
  }
  return address;
}

std::vector<std::byte> RegionKey::serialize() const {
  ByteWriter writer;
  writer.write(kKeyTag);
  writer.write(engine_id);
  writer.write(epoch);
  writer.write(bytes);
  writer.write(static_cast<std::uint32_t>(rails.size()));
  for (const Rail& rail : rails) {
    writer.write(rail.address);
    writer.write(rail.key);
  }
  return writer.take();
}

Result<RegionKey> RegionKey::parse(std::span<const std::byte> input) {
  if (input.size() > kMaxBytes)
    return fail(ErrorCode::corrupt, "a region key of {} bytes is too long", input.size());
  ByteReader reader(input);
  RegionKey key;
  const auto tag = reader.read<std::uint32_t>();
  key.engine_id = reader.read<std::array<std::uint64_t, 2>>();
  key.epoch = reader.read<std::uint64_t>();
  key.bytes = reader.read<std::uint64_t>();
  const auto rails = reader.read<std::uint32_t>();
  bool sound = reader.ok() && tag == kKeyTag && rails <= kMaxRails;
  for (std::uint32_t i = 0; sound && i < rails; ++i) {
    Rail rail;
    rail.address = reader.read<std::uint64_t>();
    rail.key = reader.read<std::uint64_t>();
    // The region must not run over the end of the address space.
    sound = reader.ok() && rail.address + key.bytes >= rail.address;
    key.rails.push_back(rail);
  }
  if (!sound || !reader.finished()) {
    return fail(ErrorCode::corrupt, "{} bytes are not a region key of this version", input.size());
  }
  return key;
}

}  // namespace switchyard
