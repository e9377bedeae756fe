#include "fabric/ofi_token.h"

#include "base/bytes.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint32_t kAddressMagic = 0x414f5753;  // "SWOA"
constexpr std::uint32_t kTokenMagic = 0x544f5753;    // "SWOT"
constexpr std::uint32_t kVersion = 1;

}  // namespace

std::vector<std::byte> encode(const OfiAddress& address) {
  ByteWriter writer;
  writer.write(kAddressMagic);
  writer.write(kVersion);
  writer.write(address.format);
  writer.write(address.type);
  return writer.take();
}

std::vector<std::byte> encode(const OfiToken& token) {
  ByteWriter writer;
  writer.write(kTokenMagic);
  writer.write(kVersion);
  writer.write(token.secret);
  writer.write_vector(std::span<const std::byte>(token.name));
  return writer.take();
}

Result<OfiAddress> decode_ofi_address(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  if (reader.read<std::uint32_t>() != kAddressMagic) reader.reject();
  if (reader.read<std::uint32_t>() != kVersion) reader.reject();
  OfiAddress address;
  address.format = reader.read<std::uint32_t>();
  address.type = reader.read<std::uint32_t>();
  if (!reader.finished())
    return fail(ErrorCode::corrupt, "{} bytes are not the address of a rail of libfabric", bytes.size());
  return address;
}

Result<OfiToken> decode_ofi_token(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  if (reader.read<std::uint32_t>() != kTokenMagic) reader.reject();
  if (reader.read<std::uint32_t>() != kVersion) reader.reject();
  OfiToken token;
  token.secret = reader.read<OfiToken::Secret>();
  token.name = reader.read_vector<std::byte>();
  if (!reader.finished() || token.name.empty())
    return fail(ErrorCode::corrupt, "{} bytes are not the token of a path of libfabric", bytes.size());
  return token;
}

}  // namespace switchyard::fabric
