// Memory that one runtime computes in: taken once, zeroed, aligned for vectors. Not thread-safe by itself;
// the runtime's phases decide who writes what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace switchyard::model {

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
// With the sums of groups of 32 columns, which weights with minimums need.
class Activations {
 public:
  Activations() = default;
  Activations(std::uint32_t rows, std::uint32_t columns)
      : columns_((columns + 31) / 32 * 32),
        stride_(columns_ + 16),
        sums_stride_((groups() + 15) / 16 * 16),
        values_(std::size_t{rows} * stride_),
        sums_(std::size_t{rows} * sums_stride_) {}

  float* row(std::uint32_t row) { return values_.data() + row * stride_; }
  float* sums(std::uint32_t row) { return sums_.data() + row * sums_stride_; }
  std::uint32_t groups() const { return columns_ / 32; }
  std::size_t stride() const { return stride_; }
  std::size_t sums_stride() const { return sums_stride_; }

 private:
  std::uint32_t columns_ = 0;
  std::size_t stride_ = 0;
  std::size_t sums_stride_ = 0;
  AlignedFloats values_;
  AlignedFloats sums_;
};

}  // namespace switchyard::model
