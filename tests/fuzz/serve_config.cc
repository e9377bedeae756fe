// Configuration files of `switchyard serve`, and models that are added by admin calls.
#include <cstddef>
#include <cstdint>
#include <string>

#include "gateway/admin.h"
#include "pool/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto config = pool::parse_config(text)) static_cast<void>(pool::keys_for_restart({}, *config));
  static_cast<void>(gateway::parse_model(text, {}));
  return 0;
}
