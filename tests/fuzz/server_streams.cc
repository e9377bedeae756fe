// What `switchyard bench pool` reads of servers: event streams cut anywhere, model lists, health, traces.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "event_stream.h"
#include "pool_bench.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard;
  using namespace switchyard::bench;
  if (size == 0) return 0;
  const std::size_t cut = data[0] + std::size_t{1};
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  EventStream whole, pieces;
  TokenTimes expected(64), found(64);
  const auto into = [](TokenTimes& tokens) {
    return [&tokens](std::string_view event) { tokens.take(event, Nanos(1)); };
  };
  bool good = whole.feed(bytes, into(expected)).has_value();
  for (std::size_t at = 0; at < bytes.size() && good; at += cut) {
    good = pieces.feed(bytes.substr(at, cut), into(found)).has_value();
  }
  // How the bytes were cut makes no difference.
  if (good && (expected.times() != found.times() || expected.finished() != found.finished())) std::abort();
  static_cast<void>(parse_models(bytes));
  static_cast<void>(parse_shape(bytes));
  const ServerTrace trace = read_trace(bytes, 1, {"a"});
  for (const auto& segment : trace.segments) {
    if (segment.instance >= trace.instances.size() || segment.model >= trace.models.size()) std::abort();
  }
  static_cast<void>(first_prefill(bytes));
  return 0;
}
