// tokenizer.json from anywhere: read, made and used, it must fail or work, and be quick about it.
//
// The input is a tokenizer.json, a zero byte, and a text to encode.
#include "model/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::model;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto zero = input.find('\0');
  const auto json = input.substr(0, zero);
  const auto text = zero == std::string_view::npos
                        ? std::string_view("Hello, world! 123 \xF0\x9F\x98\x80\xff")
                        : input.substr(zero + 1);
  auto spec = tokenizer_spec_from_json(json, {}, {});
  if (!spec) return 0;
  auto stored = TokenizerSpec::parse(spec->serialize());
  if (!stored || !(*stored == *spec)) std::abort();
  const auto tokenizer = Tokenizer::create(std::move(*spec));
  if (!tokenizer) return 0;
  const auto ids = (*tokenizer)->encode(text, {});
  static_cast<void>((*tokenizer)->encode(text, {.add_special = false, .parse_special = false}));
  static_cast<void>((*tokenizer)->decode(ids, false));
  TextStream stream(**tokenizer);
  for (const auto id : ids) {
    if (id < 0 || static_cast<std::uint32_t>(id) >= (*tokenizer)->vocab_size()) std::abort();
    static_cast<void>(stream.push(id));
  }
  static_cast<void>(stream.finish());
  return 0;
}
