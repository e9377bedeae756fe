// One run of host memory, taken from the system once and given back at the end.
//
// Page-aligned and zero; pages come when first touched. Move-only; any thread may use the memory.
#pragma once

#include <cstddef>
#include <span>

#include "switchyard/result.h"

namespace switchyard {

class Arena {
 public:
  // `bytes` is rounded up to whole pages. Errors: invalid (0 bytes), exhausted (the system has no more).
  static Result<Arena> create(std::size_t bytes);

  Arena() = default;
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  std::byte* base() const { return memory_.data(); }
  std::size_t bytes() const { return memory_.size(); }
  std::span<std::byte> span() const { return memory_; }

 private:
  explicit Arena(std::span<std::byte> memory) : memory_(memory) {}
  std::span<std::byte> memory_;
};

}  // namespace switchyard
