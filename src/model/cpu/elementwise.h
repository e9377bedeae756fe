// Norms, rotation, activation and sums of single rows. For kernel files only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/cpu/kernels.h"
#include "model/cpu/math.h"

namespace switchyard::model::cpu {
namespace {

// The sum of squares runs in sixteen lanes (element i in lane i % 16), which are then folded.
template <class S>
void rms_norm(const float* x, const float* weight, float* out, std::uint32_t size, float epsilon) {
  auto squares = S::zero();
  std::uint32_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const auto v = S::load(x + i);
    squares = S::fma(v, v, squares);
  }
  alignas(64) float lanes[kLanes];
  S::store(lanes, squares);
  for (std::uint32_t lane = 0; i + lane < size; ++lane) {
    lanes[lane] = __builtin_fmaf(x[i + lane], x[i + lane], lanes[lane]);
  }
  const float mean = fold_add(lanes) / static_cast<float>(size);
  const float factor = 1.0f / __builtin_sqrtf(mean + epsilon);
  for (std::uint32_t j = 0; j < size; ++j) out[j] = x[j] * factor * weight[j];
}

template <class S>
void group_sums(const float* x, float* sums, std::uint32_t groups) {
  for (std::uint32_t g = 0; g < groups; ++g, x += 32) {
    sums[g] = sum<S>(S::add(S::load(x), S::load(x + 16)));
  }
}

template <class S>
void rotate(float* x, const float* cosines, const float* sines, std::uint32_t half) {
  for (std::uint32_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

template <class S>
void store_half(const float* from, void* to, std::uint32_t size) {
  for (std::uint32_t i = 0; i < size; i += kLanes) {
    S::store_half(static_cast<std::byte*>(to) + std::size_t{2} * i, S::load(from + i));
  }
}

template <class S>
void swiglu(const float* gate, const float* up, float* out, std::uint32_t size) {
  for (std::uint32_t i = 0; i < size; i += kLanes) {
    S::store(out + i, S::mul(silu<S>(S::load(gate + i)), S::load(up + i)));
  }
}

template <class S>
typename S::V exponent_weight(typename S::V x, float maximum, float scale) {
  const auto scaled = S::mul(S::sub(x, S::set(maximum)), S::set(scale));
  return S::keep_from(exponential<S>(scaled), scaled, -87.0f);
}

template <class S>
void exponentials(float* x, std::uint32_t size, float maximum, float scale) {
  std::uint32_t i = 0;
  for (; i + kLanes <= size; i += kLanes) S::store(x + i, exponent_weight<S>(S::load(x + i), maximum, scale));
  alignas(64) float lanes[kLanes] = {};
  for (std::uint32_t lane = 0; i + lane < size; ++lane) lanes[lane] = x[i + lane];
  S::store(lanes, exponent_weight<S>(S::load(lanes), maximum, scale));
  for (std::uint32_t lane = 0; i + lane < size; ++lane) x[i + lane] = lanes[lane];
}

}  // namespace
}  // namespace switchyard::model::cpu
