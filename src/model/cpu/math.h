// exp, silu and sums of sixteen lanes, in one order for every instruction set. For kernel files only.
#pragma once

#include <cstdint>

namespace switchyard::model::cpu {
namespace {

// e^x with an error below 2 units in the last place; saturates at -87.3 and 88.3. NaN stays NaN: the minimum
// and maximum return their second operand then. Argument reduction and the minimax polynomial of degree 5:
// Cephes, expf.c (Moshier).
template <class S>
typename S::V exponential(typename S::V x) {
  using V = typename S::V;
  const V lowest = S::set(-87.3f);
  const V clamped = S::max(lowest, S::min(S::set(88.3f), x));
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
  const V magic = S::set(12582912.0f);
  const V n = S::sub(S::fma(clamped, S::set(1.44269504088896341f), magic), magic);
  V r = S::fma(n, S::set(-0.693359375f), clamped);
  r = S::fma(n, S::set(2.12194440e-4f), r);
  V p = S::set(1.9875691500e-4f);
  p = S::fma(p, r, S::set(1.3981999507e-3f));
  p = S::fma(p, r, S::set(8.3334519073e-3f));
  p = S::fma(p, r, S::set(4.1665795894e-2f));
  p = S::fma(p, r, S::set(1.6666665459e-1f));
  p = S::fma(p, r, S::set(5.0000001201e-1f));
  p = S::fma(p, S::mul(r, r), S::add(r, S::set(1.0f)));
  return S::mul(p, S::power_of_two(n));
}

// x / (1 + e^-x)
template <class S>
typename S::V silu(typename S::V x) {
  const auto one = S::set(1.0f);
  return S::div(x, S::add(one, exponential<S>(S::sub(S::zero(), x))));
}

// ((l0 + l8) + (l4 + l12)) + ... : halves are added to halves.
inline float fold_add(float* lane) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

template <class S>
float sum(typename S::V v) {
  alignas(64) float lane[16];
  S::store(lane, v);
  return fold_add(lane);
}

template <class S>
float maximum(typename S::V v) {
  alignas(64) float lane[16];
  S::store(lane, v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  }
  return lane[0];
}

}  // namespace
}  // namespace switchyard::model::cpu
