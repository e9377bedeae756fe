// A template of any bytes is refused, or renders within its limits.
#include "model/chat_template.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::model;
  const auto parsed = ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (!parsed) return 0;
  static const auto context = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": " hä\n"},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}],
    "tools": [{"type": "function", "function": {"name": "f"}}], "add_generation_prompt": true,
    "bos_token": "<s>", "eos_token": "</s>", "a": "A", "b": 2, "n": null, "yes": true, "f": 1.0, "s": "hällo",
    "items": [1, 2, 3], "d": {"b": 1, "a": "x"}})");
  static_cast<void>((*parsed)->render(context));
  return 0;
}
