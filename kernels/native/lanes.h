/* Conversions between the element types and f32, eight lanes at a time. */
#pragma once

#include <immintrin.h>
#include <string.h>

#include "kernel.h"

/* A type is always a constant where it is passed: what depends on it folds away. */
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8 };

INLINE size_t element_bytes(dtype type) { return type == F32 ? 4 : 2; }

/* The magnitude, as f32 bits, from which a number becomes Inf (or is NaN). */
INLINE int32_t non_finite_from(dtype type) {
  if (type == F32) return 0x7f800000;
  return type == F16 ? 0x477ff000 : 0x7f7f8000;
}

/* Exact, apart from the payload of an f16 NaN. */
INLINE __m256 load_lanes(const uint8_t *from, dtype type) {
  if (type == F32) return _mm256_loadu_ps((const float *)from);
  __m128i halves = _mm_loadu_si128((const __m128i *)from);
  if (type == F16) return _mm256_cvtph_ps(halves);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE __m256i magnitudes(__m256 values) {
  return _mm256_and_si256(_mm256_castps_si256(values), _mm256_set1_epi32(0x7fffffff));
}

/* All ones in the lanes of `magnitudes` that are not finite once rounded to `type`. */
INLINE __m256i beyond_range(__m256i magnitudes, dtype type) {
  return _mm256_cmpgt_epi32(magnitudes, _mm256_set1_epi32(non_finite_from(type) - 1));
}

/* Any NaN becomes the positive quiet NaN without payload. */
INLINE __m256 plain_nan(__m256 values) {
  __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  return _mm256_blendv_ps(values, nan, _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
}

/* Rounds to nearest even. A NaN must be a plain one. */
INLINE void store_lanes(uint8_t *to, __m256 values, dtype type) {
  if (type == F32) {
    _mm256_storeu_ps((float *)to, values);
    return;
  }
  if (type == F16) {
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
    return;
  }
  __m256i bits = _mm256_castps_si256(values);
  __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), tie);
  __m256i halves = _mm256_srli_epi32(sum, 16);
  __m128i high = _mm256_extracti128_si256(halves, 1);
  _mm_storeu_si128((__m128i *)to, _mm_packus_epi32(_mm256_castsi256_si128(halves), high));
}

/* As `load_lanes`, of fewer elements than there are lanes; the rest are zero. */
INLINE __m256 load_some(const uint8_t *from, size_t count, dtype type) {
  uint8_t padded[LANES * 4] = {0};
  memcpy(padded, from, count * element_bytes(type));
  return load_lanes(padded, type);
}

INLINE void store_some(uint8_t *to, __m256 values, size_t count, dtype type) {
  uint8_t padded[LANES * 4];
  store_lanes(padded, values, type);
  memcpy(to, padded, count * element_bytes(type));
}

INLINE int count_lanes(__m256i mask) {
  return __builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
}
