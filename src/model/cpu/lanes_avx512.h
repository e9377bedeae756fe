// Sixteen lanes of 32-bit floats in one AVX-512 register. See lanes_scalar.h for what each function means.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace switchyard::model::cpu {
namespace {

struct Avx512 {
  static constexpr int kTileRows = 12;

  using V = __m512;
  using Words = __m512i;
  using NibbleTable = __m512;

  static V zero() { return _mm512_setzero_ps(); }
  static V set(float value) { return _mm512_set1_ps(value); }
  static V load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, V v) { _mm512_storeu_ps(to, v); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V div(V a, V b) { return _mm512_div_ps(a, b); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static V min(V a, V b) { return _mm512_min_ps(a, b); }
  static V keep_first(V v, std::uint32_t count, V other) {
    const auto mask = static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u);
    return _mm512_mask_blend_ps(mask, other, v);
  }
  static V keep_from(V v, V x, float limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_GE_OQ), v);
  }
  static V power_of_two(V n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }

  static V load_half(const void* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  static void store_half(void* to, V v) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static V load_bfloat16(const void* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static V load_int8(const void* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from))));
  }

  static Words load_words(const void* from) { return _mm512_loadu_si512(from); }
  static Words next(Words words) { return _mm512_srli_epi32(words, 4); }
  // A permutation reads only the low four bits of each index: it masks, converts and biases in one.
  static NibbleTable nibble_table(float lowest) {
    const __m512 count = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_add_ps(count, _mm512_set1_ps(lowest));
  }
  static V nibbles(Words words, NibbleTable table) { return _mm512_permutexvar_ps(words, table); }

  static void transpose(const V* in, V* out) {
    V pairs[16];
    for (int i = 0; i < 16; i += 4) {
      const V low0 = _mm512_unpacklo_ps(in[i], in[i + 1]);
      const V high0 = _mm512_unpackhi_ps(in[i], in[i + 1]);
      const V low1 = _mm512_unpacklo_ps(in[i + 2], in[i + 3]);
      const V high1 = _mm512_unpackhi_ps(in[i + 2], in[i + 3]);
      pairs[i] = _mm512_shuffle_ps(low0, low1, 0x44);
      pairs[i + 1] = _mm512_shuffle_ps(low0, low1, 0xee);
      pairs[i + 2] = _mm512_shuffle_ps(high0, high1, 0x44);
      pairs[i + 3] = _mm512_shuffle_ps(high0, high1, 0xee);
    }
    // pairs[4a + c] holds, in its 128-bit part b, column 4b + c of rows 4a .. 4a + 3.
    for (int c = 0; c < 4; ++c) {
      const V even01 = _mm512_shuffle_f32x4(pairs[c], pairs[4 + c], 0x88);
      const V odd01 = _mm512_shuffle_f32x4(pairs[c], pairs[4 + c], 0xdd);
      const V even23 = _mm512_shuffle_f32x4(pairs[8 + c], pairs[12 + c], 0x88);
      const V odd23 = _mm512_shuffle_f32x4(pairs[8 + c], pairs[12 + c], 0xdd);
      out[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
      out[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
      out[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
      out[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
  }
  static void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }
};

}  // namespace
}  // namespace switchyard::model::cpu
