#include "memory/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/system_limits.h"
#include "base/units.h"

namespace switchyard {

Result<Arena> Arena::create(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (bytes == 0) return fail(ErrorCode::invalid, "an arena of 0 bytes was asked for");
  if (bytes > SIZE_MAX - page) return fail(ErrorCode::invalid, "an arena of {} bytes was asked for", bytes);
  bytes = (bytes + page - 1) / page * page;
  void* base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return fail(ErrorCode::exhausted, "cannot map {} of memory: {}; give less with kv_memory",
                format_bytes(bytes), error_text(errno));
  }
  // Not fatal where the kernel has no transparent huge pages.
  madvise(base, bytes, MADV_HUGEPAGE);
  // A child that is forked must not see these pages: they are registered with the fabric.
  madvise(base, bytes, MADV_DONTFORK);
  return Arena(std::span(static_cast<std::byte*>(base), bytes));
}

Arena::Arena(Arena&& other) noexcept : memory_(std::exchange(other.memory_, {})) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(memory_, other.memory_);
  return *this;
}

Arena::~Arena() {
  if (!memory_.empty()) munmap(memory_.data(), memory_.size());
}

}  // namespace switchyard
