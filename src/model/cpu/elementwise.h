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

// Each sum folds halves onto halves, as sum() does; sixteen of them are folded side by side.
template <class S>
void group_sums(const float* x, float* sums, std::uint32_t groups) {
  std::uint32_t g = 0;
  for (; g + kLanes <= groups; g += kLanes) {
    typename S::V rows[kLanes];
    typename S::V columns[kLanes];
#pragma GCC unroll 16
    for (std::uint32_t i = 0; i < kLanes; ++i) {
      const float* at = x + 32 * (g + i);
      rows[i] = S::add(S::load(at), S::load(at + 16));
    }
    S::transpose(rows, columns);
#pragma GCC unroll 4
    for (std::uint32_t width = 8; width > 0; width /= 2) {
#pragma GCC unroll 8
      for (std::uint32_t i = 0; i < width; ++i) columns[i] = S::add(columns[i], columns[i + width]);
    }
    S::store(sums + g, columns[0]);
  }
  for (; g < groups; ++g) sums[g] = sum<S>(S::add(S::load(x + 32 * g), S::load(x + 32 * g + 16)));
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

template <class S>
float fma_chains(std::uint32_t rounds) {
  typename S::V acc[24];
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) acc[i] = S::set(static_cast<float>(i));
  const auto factor = S::set(0.999f);
  const auto term = S::set(0.5f);
  for (std::uint32_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) acc[i] = S::fma(acc[i], factor, term);
  }
  auto total = acc[0];
  for (int i = 1; i < 24; ++i) total = S::add(total, acc[i]);
  return sum<S>(total);
}

template <class S>
float read_all(const float* from, std::size_t size) {
  typename S::V acc[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) acc[i] = S::zero();
  for (std::size_t at = 0; at < size; at += 8 * kLanes) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 8; ++i) acc[i] = S::add(acc[i], S::load(from + at + i * kLanes));
  }
  for (int i = 1; i < 8; ++i) acc[0] = S::add(acc[0], acc[i]);
  return sum<S>(acc[0]);
}

}  // namespace
}  // namespace switchyard::model::cpu
