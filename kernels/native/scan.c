/* One pass over elements in a row: conversion, and counting what is not finite. */
#include "lanes.h"

INLINE int64_t cast_as(const uint8_t *from, uint8_t *to, size_t count, dtype in, dtype out) {
  int64_t non_finite = 0;
  for (; count >= LANES; count -= LANES) {
    const __m256 values = load_lanes(from, in);
    non_finite += count_lanes(beyond_range(magnitudes(values), out));
    store_lanes(to, plain_nan(values), out);
    from += LANES * element_bytes(in);
    to += LANES * element_bytes(out);
  }
  const __m256 rest = load_some(from, count, in);
  store_some(to, plain_nan(rest), count, out);
  return non_finite + count_lanes(beyond_range(magnitudes(rest), out));
}

INLINE int64_t cast_from(const uint8_t *from, uint8_t *to, size_t count, dtype in, dtype out) {
  if (out == BF16) return cast_as(from, to, count, in, BF16);
  if (out == F16) return cast_as(from, to, count, in, F16);
  return cast_as(from, to, count, in, F32);
}

int64_t cast_elements(const uint8_t *from, uint8_t *to, size_t count, dtype in, dtype out) {
  if (in == BF16) return cast_from(from, to, count, BF16, out);
  if (in == F16) return cast_from(from, to, count, F16, out);
  return cast_from(from, to, count, F32, out);
}

INLINE int64_t count_as(const uint8_t *from, size_t count, dtype type) {
  int64_t non_finite = 0;
  for (; count >= LANES; count -= LANES) {
    non_finite += count_lanes(beyond_range(magnitudes(load_lanes(from, type)), F32));
    from += LANES * element_bytes(type);
  }
  const __m256 rest = load_some(from, count, type);
  return non_finite + count_lanes(beyond_range(magnitudes(rest), F32));
}

int64_t count_non_finite(const uint8_t *from, size_t count, dtype type) {
  if (type == BF16) return count_as(from, count, BF16);
  if (type == F16) return count_as(from, count, F16);
  return count_as(from, count, F32);
}
