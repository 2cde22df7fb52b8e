/*
 * output = round(input + s1 * (left1 * right1) + s2 * (left2 * right2) + ...) over a band of rows,
 * in blocks of columns, whose packed right factor stays in the L2 cache over all the rows.
 */
#include <stdlib.h>

#include "tile.h"

/* Half of a small L2 cache. */
enum { BLOCK_BYTES = 256 * 1024 };

INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* A tile with rows or columns missing, by way of a whole tile. What is padded is not counted. */
INLINE int64_t merge_ragged(const uint8_t *input, uint8_t *output, size_t stride, size_t rows,
                            size_t cols, const tile_factors *factors, dtype in, dtype out) {
  uint8_t from[TILE_ROWS * TILE_COLS * 4] = {0}, to[TILE_ROWS * TILE_COLS * 4];
  for (size_t row = 0; row < rows; row++) {
    memcpy(from + row * TILE_COLS * element_bytes(in), input + row * stride * element_bytes(in),
           cols * element_bytes(in));
  }
  merge_tile(from, to, TILE_COLS, factors, in, out);
  int64_t non_finite = 0;
  for (size_t row = 0; row < rows; row++) {
    const uint8_t *merged = to + row * TILE_COLS * element_bytes(out);
    memcpy(output + row * stride * element_bytes(out), merged, cols * element_bytes(out));
    non_finite += count_non_finite(merged, cols, out);
  }
  return non_finite;
}

/* Column blocks are whole tiles, which `factor_bytes` per element decides the number of. */
INLINE size_t block_columns(size_t rank, size_t factor_bytes) {
  const size_t tiles = BLOCK_BYTES / (rank * TILE_COLS * factor_bytes);
  return (tiles == 0 ? 1 : tiles) * TILE_COLS;
}

static const double *widen(const float *from, double *to, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = from[i];
  return to;
}

/* `scratch` has room for the factors of a column block and of four rows, where `out` is f32. */
INLINE int64_t merge_as(const merge_task *task, double *scratch, dtype in, dtype out) {
  const size_t rank = task->rank, stride = task->cols;
  const size_t factor_bytes = out == F32 ? sizeof(double) : sizeof(float);
  const size_t block_cols = block_columns(rank, factor_bytes);
  const size_t panel_bytes = rank * RIGHT_PANEL_COLS * factor_bytes;
  tile_factors factors = {.segments = task->segments, .segment_count = task->segment_count};
  int64_t non_finite = 0;
  for (size_t block = 0; block < stride; block += block_cols) {
    const size_t cols = least(block_cols, stride - block);
    const size_t panels = (cols + RIGHT_PANEL_COLS - 1) / RIGHT_PANEL_COLS;
    const void *right = task->right + block * rank;
    if (out == F32) right = widen(right, scratch, panels * rank * RIGHT_PANEL_COLS);
    for (size_t row = 0; row < task->rows; row += TILE_ROWS) {
      const size_t rows = least(TILE_ROWS, task->rows - row);
      factors.left = task->left + row * rank;
      if (out == F32) {
        factors.left = widen(factors.left, scratch + block_cols * rank, rank * TILE_ROWS);
      }
      for (size_t col = 0; col < cols; col += TILE_COLS) {
        const size_t at = row * stride + block + col;
        const uint8_t *input = task->input + at * element_bytes(in);
        uint8_t *output = task->output + at * element_bytes(out);
        const size_t tile_cols = least(TILE_COLS, cols - col);
        factors.right_low = (const uint8_t *)right + col / RIGHT_PANEL_COLS * panel_bytes;
        factors.right_high = factors.right_low;
        if (tile_cols > RIGHT_PANEL_COLS) {
          factors.right_high = (const uint8_t *)factors.right_low + panel_bytes;
        }
        if (rows == TILE_ROWS && tile_cols == TILE_COLS) {
          non_finite += merge_tile(input, output, stride, &factors, in, out);
        } else {
          non_finite += merge_ragged(input, output, stride, rows, tile_cols, &factors, in, out);
        }
      }
    }
  }
  return non_finite;
}

INLINE int64_t merge_from(const merge_task *task, double *scratch, dtype in) {
  if (task->type_out == BF16) return merge_as(task, scratch, in, BF16);
  if (task->type_out == F16) return merge_as(task, scratch, in, F16);
  return merge_as(task, scratch, in, F32);
}

int64_t merge_band(const merge_task *task) {
  double *scratch = NULL;
  if (task->type_out == F32) {
    const size_t lanes = block_columns(task->rank, sizeof(double)) + TILE_ROWS;
    scratch = malloc(lanes * task->rank * sizeof(double));
    if (scratch == NULL) return -1;
  }
  int64_t non_finite;
  if (task->type_in == BF16) non_finite = merge_from(task, scratch, BF16);
  else if (task->type_in == F16) non_finite = merge_from(task, scratch, F16);
  else non_finite = merge_from(task, scratch, F32);
  free(scratch);
  return non_finite;
}
