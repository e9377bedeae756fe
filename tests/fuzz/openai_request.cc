// Bodies of chat and completion requests, from bytes to checked requests.
#include "gateway/openai_request.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::gateway;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const RequestLimits limits;
  const auto check = [](const auto& request) {
    if (!request) static_cast<void>(error_json(request.error()));
  };
  check(parse_chat_request(body, limits));
  check(parse_completion_request(body, limits));
  static_cast<void>(path_of(body));
  return 0;
}
