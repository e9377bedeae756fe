// A stored tokenizer of any bytes is refused, or is what its own stored form says.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::model;
  auto spec = TokenizerSpec::parse(std::as_bytes(std::span(data, size)));
  if (!spec) return 0;
  const auto again = TokenizerSpec::parse(spec->serialize());
  if (!again) std::abort();
  const auto tokenizer = Tokenizer::create(std::move(*spec));
  if (tokenizer) static_cast<void>((*tokenizer)->encode("Hello \xE2\x96\x81 world 12", {}));
  return 0;
}
