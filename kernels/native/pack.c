/* Upcasts a factor to f32 and lays it out in panels, so that the k loop reads it in order. */
#include "lanes.h"

INLINE float load_one(const uint8_t *from, dtype type) {
  return _mm256_cvtss_f32(load_some(from, 1, type));
}

INLINE void pack_as(const pack_task *task, dtype type) {
  const size_t width = task->panel_width;
  const size_t lane_end = task->lane_begin + task->lane_count;
  size_t end;
  for (size_t begin = task->lane_begin; begin < lane_end; begin = end) {
    const size_t panel = begin / width;
    end = (panel + 1) * width < lane_end ? (panel + 1) * width : lane_end;
    float *rows = task->target + (panel * task->rank + task->rank_begin) * width;
    for (size_t k = 0; k < task->rank_count; k++) {
      const size_t first = k * task->rank_stride;
      for (size_t lane = begin; lane < end; lane++) {
        const size_t element = first + (lane - task->lane_begin) * task->lane_stride;
        const uint8_t *from = task->source + element * element_bytes(type);
        rows[k * width + lane - panel * width] = load_one(from, type);
      }
    }
  }
}

void pack_factor(const pack_task *task) {
  if (task->type == BF16) pack_as(task, BF16);
  else if (task->type == F16) pack_as(task, F16);
  else pack_as(task, F32);
}
