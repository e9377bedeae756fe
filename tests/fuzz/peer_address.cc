// Addresses and keys come from other processes: parsing never reads outside of the input, and what parses is
// written back as it was.
#include <algorithm>
#include <cstdlib>

#include "switchyard/transfer.h"

namespace {

template <class T>
void check(std::span<const std::byte> input) {
  auto parsed = T::parse(input);
  if (!parsed) return;
  const auto again = parsed->serialize();
  if (!std::ranges::equal(again, input)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  check<switchyard::PeerAddress>(input);
  check<switchyard::RegionKey>(input);
  return 0;
}
