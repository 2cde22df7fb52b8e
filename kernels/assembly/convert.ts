/** One pass over elements in a row: conversion, and counting what is not finite. */
import { decodeElements } from './decode';
import { encodeElements } from './encode';
import { stripF32 } from './strip';
import { ROW_BYTES_F32, STRIP_COLS } from './tile';

/** @returns how many stored results are Inf or NaN */
export function castElements<In, Out>(input: usize, output: usize, count: i32): i32 {
  let nonFinite = 0;
  for (; count > 0; count -= STRIP_COLS) {
    const cols = min(count, STRIP_COLS);
    decodeElements<In>(input, stripF32, cols);
    nonFinite += encodeElements<Out>(stripF32, output, cols);
    input += STRIP_COLS * sizeof<In>();
    output += STRIP_COLS * sizeof<Out>();
  }
  return nonFinite;
}

/** @returns how many of the elements are Inf or NaN */
export function countElements<T>(input: usize, count: i32): i32 {
  let nonFinite = 0;
  for (; count > 0; count -= STRIP_COLS) {
    const cols = min(count, STRIP_COLS);
    decodeElements<T>(input, stripF32, cols);
    nonFinite += encodeElements<f32>(stripF32, stripF32 + ROW_BYTES_F32, cols);
    input += STRIP_COLS * sizeof<T>();
  }
  return nonFinite;
}
