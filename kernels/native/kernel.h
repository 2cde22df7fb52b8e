/*
 * The native kernel: what `kernels/assembly` does, with AVX2 and F16C, and the same bytes. Sums
 * ascend over k from zero and nothing is fused. The caller checks every size and offset.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* `kernels/dtypes.ts` holds the same numbers. */
typedef enum { BF16 = 0, F16 = 1, F32 = 2 } dtype;

/* Lanes in a panel of the packed factors; `kernels/arena.ts` holds the same numbers. */
enum { LEFT_PANEL_ROWS = 4, RIGHT_PANEL_COLS = 8 };

/* Strides count elements. A lane is a column of the right factor or a row of the left one. */
typedef struct {
  const uint8_t *source;
  float *target;
  size_t rank_stride, lane_stride;
  size_t rank, rank_begin, rank_count;
  size_t lane_begin, lane_count;
  size_t panel_width;
  dtype type;
} pack_task;

/* One adapter's share of the packed factors. */
typedef struct {
  size_t rank;
  double scale;
} segment;

typedef struct {
  const uint8_t *input;
  uint8_t *output;
  const float *left;  /* [row / 4][rank][4] */
  const float *right; /* [col / 8][rank][8] */
  size_t rows, cols, rank;
  const segment *segments;
  size_t segment_count;
  dtype type_in, type_out;
} merge_task;

/* Element (k, lane) goes to target[lane / panel_width][k][lane % panel_width]. */
void pack_factor(const pack_task *task);

/* Returns how many stored results are Inf or NaN, or -1 without memory for its scratch. */
int64_t merge_band(const merge_task *task);

/* Returns how many stored results are Inf or NaN. */
int64_t cast_elements(const uint8_t *from, uint8_t *to, size_t count, dtype in, dtype out);

/* Returns how many elements are Inf or NaN. */
int64_t count_non_finite(const uint8_t *from, size_t count, dtype type);
