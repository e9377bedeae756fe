#include "fabric/verbs_token.h"

#include <cstring>

#include "base/bytes.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint32_t kAddressMagic = 0x41565753;  // "SWVA"
constexpr std::uint32_t kTokenMagic = 0x54565753;    // "SWVT"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint32_t kMax24Bits = 0xff'ffff;

void write(ByteWriter& writer, std::uint32_t magic, const VerbsAddress& address) {
  writer.write(magic);
  writer.write(kVersion);
  writer.write(static_cast<std::uint8_t>(address.ethernet ? 1 : 0));
  writer.write(std::uint8_t{0});
  writer.write(address.lid);
  writer.write(address.gid);
}

VerbsAddress read(ByteReader& reader, std::uint32_t magic) {
  VerbsAddress address;
  if (reader.read<std::uint32_t>() != magic) reader.reject();
  if (reader.read<std::uint16_t>() != kVersion) reader.reject();
  const auto layer = reader.read<std::uint8_t>();
  if (reader.read<std::uint8_t>() != 0 || layer > 1) reader.reject();
  address.ethernet = layer == 1;
  address.lid = reader.read<std::uint16_t>();
  address.gid = reader.read<ibv_gid>();
  const ibv_gid nowhere{};
  if (std::memcmp(&address.gid, &nowhere, sizeof nowhere) == 0) reader.reject();
  if (!address.ethernet && address.lid == 0) reader.reject();
  return address;
}

}  // namespace

std::vector<std::byte> encode(const VerbsAddress& address) {
  ByteWriter writer;
  write(writer, kAddressMagic, address);
  return writer.take();
}

std::vector<std::byte> encode(const VerbsToken& token) {
  ByteWriter writer;
  write(writer, kTokenMagic, token.address);
  writer.write(token.queue_pair);
  writer.write(token.first_packet);
  writer.write(static_cast<std::uint8_t>(token.mtu));
  return writer.take();
}

Result<VerbsAddress> decode_verbs_address(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const VerbsAddress address = read(reader, kAddressMagic);
  if (!reader.finished())
    return fail(ErrorCode::corrupt, "fabric 'verbs': {} bytes are not a rail's address", bytes.size());
  return address;
}

Result<VerbsToken> decode_verbs_token(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  VerbsToken token;
  token.address = read(reader, kTokenMagic);
  token.queue_pair = reader.read<std::uint32_t>();
  token.first_packet = reader.read<std::uint32_t>();
  const auto mtu = reader.read<std::uint8_t>();
  // Queue pairs 0 and 1 are the network's own.
  if (token.queue_pair < 2 || token.queue_pair > kMax24Bits || token.first_packet > kMax24Bits ||
      mtu < IBV_MTU_256 || mtu > IBV_MTU_4096)
    reader.reject();
  if (!reader.finished())
    return fail(ErrorCode::corrupt, "fabric 'verbs': {} bytes are not the token of a path", bytes.size());
  token.mtu = static_cast<ibv_mtu>(mtu);
  return token;
}

}  // namespace switchyard::fabric
