// Memory that runtimes compute in. AlignedFloats owns it, Activations says how rows lie in it. Not
// thread-safe by itself; the runtime's phases decide who writes what.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace switchyard::model {

// Zeroed, aligned for vectors.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t count)
      : floats_(static_cast<float*>(::operator new(count * sizeof(float), kAlignment))), count_(count) {
    std::memset(floats_.get(), 0, count * sizeof(float));
  }
  float* data() { return floats_.get(); }
  const float* data() const { return floats_.get(); }
  std::size_t size() const { return count_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* at) const { ::operator delete(at, kAlignment); }
  };
  std::unique_ptr<float, Free> floats_;
  std::size_t count_ = 0;
};

// [rows][columns] of activations: columns padded with zeros to what products read, and rows a cache line
// further apart than that, so that a power of two of columns does not put all rows into one set of the cache.
// With the sums of groups of 32 columns, which weights with minimums need. The memory is somebody else's.
class Activations {
 public:
  Activations() = default;
  Activations(std::uint32_t rows, std::uint32_t columns)
      : rows_(rows),
        columns_(columns),
        padded_((columns + 31) / 32 * 32),
        stride_(padded_ + 16),
        sums_stride_((groups() + 15) / 16 * 16) {}

  // Floats that it takes; whole cache lines.
  std::size_t floats() const { return std::size_t{rows_} * (stride_ + sums_stride_); }
  // Lies at `at` from now on, whose floats may be anything: the padding becomes zeros.
  void place(float* at) {
    values_ = at;
    sums_ = at + std::size_t{rows_} * stride_;
    clear(columns_, padded_);
  }
  // Zeros in these columns of all rows.
  void clear(std::uint32_t first, std::uint32_t last) {
    for (std::uint32_t i = 0; first < last && i < rows_; ++i) std::fill(row(i) + first, row(i) + last, 0.0f);
  }

  float* row(std::uint32_t row) { return values_ + row * stride_; }
  float* sums(std::uint32_t row) { return sums_ + row * sums_stride_; }
  std::uint32_t groups() const { return padded_ / 32; }
  std::size_t stride() const { return stride_; }
  std::size_t sums_stride() const { return sums_stride_; }

 private:
  std::uint32_t rows_ = 0;
  std::uint32_t columns_ = 0;
  std::uint32_t padded_ = 0;
  std::size_t stride_ = 0;
  std::size_t sums_stride_ = 0;
  float* values_ = nullptr;
  float* sums_ = nullptr;
};

}  // namespace switchyard::model
