// Whatever arrives at the control port is parsed record by record: never outside of the input, and what
// parses is written back as it was.
#include "transfer/control_record.h"

#include <algorithm>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::transfer;
  constexpr std::size_t kLimit = 64 << 10;
  auto rest = std::as_bytes(std::span(data, size));
  for (;;) {
    auto header = parse_header(rest, kLimit);
    if (!header || !*header) return 0;
    const std::size_t whole = kRecordHeaderBytes + (*header)->payload_bytes;
    if ((*header)->payload_bytes > kLimit) std::abort();
    if (rest.size() < whole) return 0;
    auto record = parse_record((*header)->type, rest.subspan(kRecordHeaderBytes, (*header)->payload_bytes));
    if (!record) return 0;
    std::vector<std::byte> again;
    append_record(again, *record);
    // Reasons are cut to their limit.
    if (again.size() > whole || (again.size() == whole && !std::ranges::equal(again, rest.first(whole))))
      std::abort();
    rest = rest.subspan(whole);
  }
}
