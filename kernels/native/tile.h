/*
 * A tile of 4 rows x 16 columns, whose sums begin as the weights, take up one product after the
 * other, and are rounded once, when they are stored. With 8 accumulators, 2 vectors of the right
 * factor and a splat of the left, the multipliers and adders are what limits the k loop.
 */
#pragma once

#include "lanes.h"

enum { TILE_ROWS = LEFT_PANEL_ROWS, TILE_COLS = 2 * RIGHT_PANEL_COLS };

/*
 * Makes the NaN of vectors plain, and counts what is not finite once rounded to `type`. That there
 * is any is rare, and found with two instructions per vector.
 */
INLINE int settle(__m256 *values, int count, dtype type) {
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < count; i++) largest = _mm256_max_epi32(largest, magnitudes(values[i]));
  if (count_lanes(beyond_range(largest, type)) == 0) return 0;
  int non_finite = 0;
  for (int i = 0; i < count; i++) {
    non_finite += count_lanes(beyond_range(magnitudes(values[i]), type));
    values[i] = plain_nan(values[i]);
  }
  return non_finite;
}

/* The packed factors of a tile, as f32 for 16-bit results and as f64 for f32 ones. */
typedef struct {
  const void *left;                 /* [rank][4] */
  const void *right_low, *right_high; /* [rank][8] each */
  const segment *segments;
  size_t segment_count;
} tile_factors;

/* Every product and every sum is rounded to f32. Results lie `stride` elements apart by row. */
INLINE int merge_tile_f32(const uint8_t *input, uint8_t *output, size_t stride,
                              const tile_factors *factors, dtype in, dtype out) {
  __m256 sums[TILE_ROWS][2];
  for (int row = 0; row < TILE_ROWS; row++) {
    const uint8_t *from = input + row * stride * element_bytes(in);
    sums[row][0] = load_lanes(from, in);
    sums[row][1] = load_lanes(from + LANES * element_bytes(in), in);
  }
  const float *left = factors->left;
  const float *low = factors->right_low, *high = factors->right_high;
  for (size_t i = 0; i < factors->segment_count; i++) {
    const float *left_end = left + factors->segments[i].rank * TILE_ROWS;
    __m256 products[TILE_ROWS][2] = {0};
    for (; left < left_end; left += TILE_ROWS, low += LANES, high += LANES) {
      const __m256 right[2] = {_mm256_loadu_ps(low), _mm256_loadu_ps(high)};
      for (int row = 0; row < TILE_ROWS; row++) {
        const __m256 splat = _mm256_broadcast_ss(left + row);
        for (int half = 0; half < 2; half++) {
          __m256 term = _mm256_mul_ps(splat, right[half]);
          products[row][half] = _mm256_add_ps(products[row][half], term);
        }
      }
    }
    const __m256 scale = _mm256_set1_ps((float)factors->segments[i].scale);
    for (int row = 0; row < TILE_ROWS; row++) {
      for (int half = 0; half < 2; half++) {
        __m256 term = _mm256_mul_ps(products[row][half], scale);
        sums[row][half] = _mm256_add_ps(sums[row][half], term);
      }
    }
  }
  const int non_finite = settle(&sums[0][0], 2 * TILE_ROWS, out);
  for (int row = 0; row < TILE_ROWS; row++) {
    uint8_t *to = output + row * stride * element_bytes(out);
    store_lanes(to, sums[row][0], out);
    store_lanes(to + LANES * element_bytes(out), sums[row][1], out);
  }
  return non_finite;
}

INLINE __m256d low_half(__m256 values) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(values));
}

INLINE __m256d high_half(__m256 values) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1));
}

/* Half a tile: f64 lanes are twice as wide. A product of two f32 is exact in f64. */
INLINE int merge_half_f64(const uint8_t *input, uint8_t *output, size_t stride,
                              const tile_factors *factors, const double *right, dtype in) {
  __m256d sums[TILE_ROWS][2];
  for (int row = 0; row < TILE_ROWS; row++) {
    const __m256 weights = load_lanes(input + row * stride * element_bytes(in), in);
    sums[row][0] = low_half(weights);
    sums[row][1] = high_half(weights);
  }
  const double *left = factors->left;
  for (size_t i = 0; i < factors->segment_count; i++) {
    const double *left_end = left + factors->segments[i].rank * TILE_ROWS;
    __m256d products[TILE_ROWS][2] = {0};
    for (; left < left_end; left += TILE_ROWS, right += LANES) {
      const __m256d halves[2] = {_mm256_loadu_pd(right), _mm256_loadu_pd(right + 4)};
      for (int row = 0; row < TILE_ROWS; row++) {
        const __m256d splat = _mm256_broadcast_sd(left + row);
        for (int half = 0; half < 2; half++) {
          __m256d term = _mm256_mul_pd(splat, halves[half]);
          products[row][half] = _mm256_add_pd(products[row][half], term);
        }
      }
    }
    const __m256d scale = _mm256_set1_pd(factors->segments[i].scale);
    for (int row = 0; row < TILE_ROWS; row++) {
      for (int half = 0; half < 2; half++) {
        __m256d term = _mm256_mul_pd(products[row][half], scale);
        sums[row][half] = _mm256_add_pd(sums[row][half], term);
      }
    }
  }
  __m256 rounded[TILE_ROWS];
  for (int row = 0; row < TILE_ROWS; row++) {
    const __m128 low = _mm256_cvtpd_ps(sums[row][0]);
    rounded[row] = _mm256_set_m128(_mm256_cvtpd_ps(sums[row][1]), low);
  }
  const int non_finite = settle(rounded, TILE_ROWS, F32);
  for (int row = 0; row < TILE_ROWS; row++) {
    store_lanes(output + row * stride * element_bytes(F32), rounded[row], F32);
  }
  return non_finite;
}

INLINE int merge_tile(const uint8_t *input, uint8_t *output, size_t stride,
                          const tile_factors *factors, dtype in, dtype out) {
  if (out != F32) return merge_tile_f32(input, output, stride, factors, in, out);
  const int low = merge_half_f64(input, output, stride, factors, factors->right_low, in);
  input += LANES * element_bytes(in);
  output += LANES * element_bytes(out);
  const int high = merge_half_f64(input, output, stride, factors, factors->right_high, in);
  return low + high;
}
