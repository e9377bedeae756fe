// What two ends of a path, and two rails, tell each other: records of fixed size, versioned, and checked
// when read. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fabric/verbs_library.h"

namespace switchyard::fabric {

// Where a port is.
struct VerbsAddress {
  bool ethernet = false;
  std::uint16_t lid = 0;  // of InfiniBand
  ibv_gid gid{};
};

// One end of a connection.
struct VerbsToken {
  VerbsAddress address;
  std::uint32_t queue_pair = 0;    // 24 bits
  std::uint32_t first_packet = 0;  // the sequence number that it starts to send with; 24 bits
  ibv_mtu mtu = IBV_MTU_256;
};

std::vector<std::byte> encode(const VerbsAddress& address);
std::vector<std::byte> encode(const VerbsToken& token);
// Errors: corrupt.
Result<VerbsAddress> decode_verbs_address(std::span<const std::byte> bytes);
Result<VerbsToken> decode_verbs_token(std::span<const std::byte> bytes);

}  // namespace switchyard::fabric
