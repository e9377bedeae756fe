// Sixteen lanes of 32-bit floats in two AVX2 registers. See lanes_scalar.h for what each function means.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace switchyard::model::cpu {
namespace {

struct Avx2 {
  static constexpr int kTileRows = 3;

  struct V {
    __m256 low;
    __m256 high;
  };
  struct Words {
    __m256i low;
    __m256i high;
  };
  using NibbleTable = __m256i;

  static V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static V set(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static V load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static void store(float* to, V v) {
    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 8, v.high);
  }
  static V fma(V a, V b, V c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static V add(V a, V b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static V sub(V a, V b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static V mul(V a, V b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static V div(V a, V b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static V max(V a, V b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static V min(V a, V b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
  static V keep_first(V v, std::uint32_t count, V other) {
    const __m256i limit = _mm256_set1_epi32(static_cast<int>(count < 16 ? count : 16));
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm256_blendv_ps(other.low, v.low, _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, low))),
            _mm256_blendv_ps(other.high, v.high, _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, high)))};
  }
  static V keep_from(V v, V x, float limit) {
    const __m256 from = _mm256_set1_ps(limit);
    return {_mm256_and_ps(v.low, _mm256_cmp_ps(x.low, from, _CMP_GE_OQ)),
            _mm256_and_ps(v.high, _mm256_cmp_ps(x.high, from, _CMP_GE_OQ))};
  }
  static V power_of_two(V n) {
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i low = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.low), bias), 23);
    const __m256i high = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.high), bias), 23);
    return {_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)};
  }

  static V load_half(const void* from) {
    const auto* halves = static_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static void store_half(void* to, V v) {
    auto* halves = static_cast<__m128i*>(to);
    _mm_storeu_si128(halves, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
  }
  static V load_bfloat16(const void* from) {
    const auto* halves = static_cast<const __m128i*>(from);
    const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves));
    const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
  }
  static V load_int8(const void* from) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }

  static Words load_words(const void* from) {
    const auto* words = static_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  }
  static Words next(Words words) {
    return {_mm256_srli_epi32(words.low, 4), _mm256_srli_epi32(words.high, 4)};
  }
  static NibbleTable nibble_table(float lowest) { return _mm256_set1_epi32(static_cast<int>(lowest)); }
  static V nibbles(Words words, NibbleTable table) {
    const __m256i mask = _mm256_set1_epi32(15);
    return {_mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_and_si256(words.low, mask), table)),
            _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_and_si256(words.high, mask), table))};
  }

  static void transpose(const V* in, V* out) {
    alignas(32) float from[16][16];
    for (int i = 0; i < 16; ++i) store(from[i], in[i]);
    for (int i = 0; i < 16; ++i) {
      alignas(32) float column[16];
      for (int j = 0; j < 16; ++j) column[j] = from[j][i];
      out[i] = load(column);
    }
  }
  static void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }
};

}  // namespace
}  // namespace switchyard::model::cpu
