// Sixteen lanes of 32-bit floats in plain C++: what the vector forms of lanes_avx2.h and lanes_avx512.h must
// equal, bit for bit. Included by one kernel file only; everything here has internal linkage, so that code
// built for one instruction set can never be linked into another's place.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "model/half.h"

namespace switchyard::model::cpu {
namespace {

struct Scalar {
  // Largest number of rows of one product tile.
  static constexpr int kTileRows = 4;

  struct V {
    float lane[16];
  };
  struct Words {
    std::uint32_t lane[16];
  };

  template <class F>
  static V each(F f) {
    V v;
    for (int i = 0; i < 16; ++i) v.lane[i] = f(i);
    return v;
  }

  static V zero() { return set(0.0f); }
  static V set(float value) {
    return each([&](int) { return value; });
  }
  static V load(const float* from) {
    return each([&](int i) { return from[i]; });
  }
  static void store(float* to, const V& v) { std::memcpy(to, v.lane, sizeof(v.lane)); }
  static V fma(const V& a, const V& b, const V& c) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static V add(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static V sub(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static V mul(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static V div(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  // As the x86 instructions: the second operand where the two are equal or one is not a number.
  static V max(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static V min(const V& a, const V& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // The first `count` lanes of `v`, and `other` in the rest.
  static V keep_first(const V& v, std::uint32_t count, const V& other) {
    return each([&](int i) { return static_cast<std::uint32_t>(i) < count ? v.lane[i] : other.lane[i]; });
  }
  // `v`, and 0 in lanes where `x` is below `limit` or not a number.
  static V keep_from(const V& v, const V& x, float limit) {
    return each([&](int i) { return x.lane[i] >= limit ? v.lane[i] : 0.0f; });
  }
  // 2^n for integral n between -126 and 127.
  static V power_of_two(const V& n) {
    return each([&](int i) {
      const auto bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127) << 23;
      return std::bit_cast<float>(bits);
    });
  }

  static V load_half(const void* from) {
    std::uint16_t half[16];
    std::memcpy(half, from, sizeof(half));
    return each([&](int i) { return half_to_float(half[i]); });
  }
  static void store_half(void* to, const V& v) {
    std::uint16_t half[16];
    for (int i = 0; i < 16; ++i) half[i] = float_to_half(v.lane[i]);
    std::memcpy(to, half, sizeof(half));
  }
  static V load_bfloat16(const void* from) {
    std::uint16_t half[16];
    std::memcpy(half, from, sizeof(half));
    return each([&](int i) { return bfloat16_to_float(half[i]); });
  }
  static V load_int8(const void* from) {
    std::int8_t bytes[16];
    std::memcpy(bytes, from, sizeof(bytes));
    return each([&](int i) { return static_cast<float>(bytes[i]); });
  }

  // Nibbles: sixteen words of eight, lowest first; next() drops the lowest.
  static Words load_words(const void* from) {
    Words words;
    std::memcpy(words.lane, from, sizeof(words.lane));
    return words;
  }
  static Words next(Words words) {
    for (auto& lane : words.lane) lane >>= 4;
    return words;
  }
  // The floats that the lowest nibbles stand for: `nibble + lowest`.
  struct NibbleTable {
    float lowest;
  };
  static NibbleTable nibble_table(float lowest) { return {lowest}; }
  static V nibbles(const Words& words, const NibbleTable& table) {
    return each([&](int i) { return static_cast<float>(words.lane[i] & 15u) + table.lowest; });
  }

  // out[i].lane[j] = in[j].lane[i]
  static void transpose(const V* in, V* out) {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) out[i].lane[j] = in[j].lane[i];
    }
  }
  static void prefetch(const void*) {}
};

}  // namespace
}  // namespace switchyard::model::cpu
