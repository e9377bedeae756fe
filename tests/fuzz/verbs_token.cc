// Addresses of rails and tokens of paths come from other processes: parsing never reads outside of the input,
// and what parses is written back as it was.
#include "fabric/verbs_token.h"

#include <algorithm>
#include <cstdlib>

namespace {

void check(const auto& parsed, std::span<const std::byte> input) {
  if (parsed && !std::ranges::equal(switchyard::fabric::encode(*parsed), input)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  check(switchyard::fabric::decode_verbs_address(input), input);
  check(switchyard::fabric::decode_verbs_token(input), input);
  return 0;
}
