// What rails of libfabric, and the ends of their paths, tell each other: versioned records, checked when
// read. Pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::fabric {

// Of a rail: which kind of names and endpoints it has.
struct OfiAddress {
  std::uint32_t format = 0;  // of endpoints' names
  std::uint32_t type = 0;    // of endpoints
  bool operator==(const OfiAddress&) const = default;
};

// Of one end of a path.
struct OfiToken {
  using Secret = std::array<std::byte, 16>;
  Secret secret{};              // whoever connects to the end has to know it
  std::vector<std::byte> name;  // of the endpoint that takes the connection
};

std::vector<std::byte> encode(const OfiAddress& address);
std::vector<std::byte> encode(const OfiToken& token);
// Errors: corrupt.
Result<OfiAddress> decode_ofi_address(std::span<const std::byte> bytes);
Result<OfiToken> decode_ofi_token(std::span<const std::byte> bytes);

}  // namespace switchyard::fabric
