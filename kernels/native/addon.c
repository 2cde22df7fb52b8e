/*
 * The functions of the kernel as Node.js calls them: each takes a Uint8Array over the memory that
 * holds all the areas, then numbers, with areas as offsets into that memory. Nothing is kept
 * between calls, so any number of threads may load this. Built without AVX2, since it has to run
 * where there is none and say so.
 */
#include <cpuid.h>
#include <stdbool.h>

#include "kernel.h"
#include "node-api.h"

/* `kernels/merge-kernel.ts` holds the same number of segments. */
enum { SEGMENTS_MAX = 256, NUMBERS_MAX = 11, ARGUMENTS_MAX = NUMBERS_MAX + 2 };

typedef struct {
  uint8_t *memory;
  int64_t numbers[NUMBERS_MAX];
  segment segments[SEGMENTS_MAX];
  size_t segment_count;
} call;

/* The segments, from the rank and the scale of each as f64. */
static bool read_segments(napi_env env, napi_value argument, call *result) {
  size_t count;
  void *data;
  if (napi_get_typedarray_info(env, argument, NULL, &count, &data, NULL, NULL) != 0) return false;
  if (count % 2 != 0 || count / 2 > SEGMENTS_MAX) return false;
  const double *numbers = data;
  result->segment_count = count / 2;
  for (size_t i = 0; i < result->segment_count; i++) {
    result->segments[i].rank = (size_t)numbers[2 * i];
    result->segments[i].scale = numbers[2 * i + 1];
  }
  return true;
}

/* Throws and returns false where the arguments are not (memory, `count` numbers, [segments]). */
static bool read_call(napi_env env, napi_callback_info info, size_t count, bool has_segments,
                      call *result) {
  napi_value arguments[ARGUMENTS_MAX];
  size_t given = ARGUMENTS_MAX;
  void *memory;
  bool is_right =
      napi_get_cb_info(env, info, &given, arguments, NULL, NULL) == 0 &&
      given == 1 + count + has_segments &&
      napi_get_typedarray_info(env, arguments[0], NULL, NULL, &memory, NULL, NULL) == 0;
  for (size_t i = 0; is_right && i < count; i++) {
    is_right = napi_get_value_int64(env, arguments[1 + i], &result->numbers[i]) == 0;
  }
  if (is_right && has_segments) is_right = read_segments(env, arguments[1 + count], result);
  if (!is_right) {
    napi_throw_type_error(env, NULL, "the native kernel is of another version: build it again");
    return false;
  }
  result->memory = memory;
  return true;
}

static napi_value to_number(napi_env env, int64_t number) {
  napi_value value = NULL;
  napi_create_int64(env, number, &value);
  return value;
}

static napi_value pack(napi_env env, napi_callback_info info) {
  call call;
  if (!read_call(env, info, 11, false, &call)) return NULL;
  const int64_t *n = call.numbers;
  const pack_task task = {
      .source = call.memory + n[0],
      .rank_stride = n[1],
      .lane_stride = n[2],
      .target = (float *)(call.memory + n[3]),
      .rank = n[4],
      .rank_begin = n[5],
      .rank_count = n[6],
      .lane_begin = n[7],
      .lane_count = n[8],
      .panel_width = n[9],
      .type = n[10],
  };
  pack_factor(&task);
  return NULL;
}

static napi_value merge(napi_env env, napi_callback_info info) {
  call call;
  if (!read_call(env, info, 9, true, &call)) return NULL;
  const int64_t *n = call.numbers;
  const merge_task task = {
      .input = call.memory + n[0],
      .output = call.memory + n[1],
      .left = (const float *)(call.memory + n[2]),
      .right = (const float *)(call.memory + n[3]),
      .rows = n[4],
      .cols = n[5],
      .rank = n[6],
      .type_in = n[7],
      .type_out = n[8],
      .segments = call.segments,
      .segment_count = call.segment_count,
  };
  const int64_t non_finite = merge_band(&task);
  if (non_finite < 0) {
    napi_throw_error(env, NULL, "no memory is left for the merge kernel's scratch of a megabyte");
    return NULL;
  }
  return to_number(env, non_finite);
}

static napi_value cast(napi_env env, napi_callback_info info) {
  call call;
  if (!read_call(env, info, 5, false, &call)) return NULL;
  const int64_t *n = call.numbers;
  return to_number(env, cast_elements(call.memory + n[0], call.memory + n[1], n[2], n[3], n[4]));
}

static napi_value count(napi_env env, napi_callback_info info) {
  call call;
  if (!read_call(env, info, 3, false, &call)) return NULL;
  const int64_t *n = call.numbers;
  return to_number(env, count_non_finite(call.memory + n[0], n[1], n[2]));
}

/* AVX2 and F16C in the processor, and registers that the system saves. */
static bool can_run(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  const unsigned wanted = bit_OSXSAVE | bit_AVX | bit_F16C;
  if ((c & wanted) != wanted) return false;
  unsigned saved, unused;
  __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
  enum { XMM_AND_YMM = 6 };
  if ((saved & XMM_AND_YMM) != XMM_AND_YMM) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2) != 0;
}

static void export_function(napi_env env, napi_value exports, const char *name,
                            napi_callback callback) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function) == 0) {
    napi_set_named_property(env, exports, name, function);
  }
}

__attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1(void) {
  return 8;
}

/* Exports nothing where the processor cannot run the kernel. */
__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env,
                                                                        napi_value exports) {
  if (!can_run()) return exports;
  export_function(env, exports, "pack", pack);
  export_function(env, exports, "merge", merge);
  export_function(env, exports, "cast", cast);
  export_function(env, exports, "countNonFinite", count);
  return exports;
}
