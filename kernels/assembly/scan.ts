/** One pass over elements in a row: conversion, and counting what is not finite. */
import { loadScalar, storeScalar, nonFiniteFrom, ABS_MASK } from './dtypes';
import { beyondRange, loadFour, maxMagnitude, maxRaw, rawNonFinite, storeEight } from './lanes';

const LANES: i32 = 8;

/** @returns how many stored results are Inf or NaN */
export function castElements<In, Out>(input: usize, output: usize, count: i32): i32 {
  let nonFinite = 0;
  while (count >= LANES) {
    const low = loadFour<In>(input);
    const high = loadFour<In>(input + 4 * sizeof<In>());
    if (isEightFinite<In, Out>(input, low, high)) storeEight<Out>(output, low, high);
    else nonFinite += castScalars<In, Out>(input, output, LANES);
    input += LANES * sizeof<In>();
    output += LANES * sizeof<Out>();
    count -= LANES;
  }
  return nonFinite + castScalars<In, Out>(input, output, count);
}

/** @returns how many of the elements are Inf or NaN */
export function countElements<T>(input: usize, count: i32): i32 {
  let nonFinite = 0;
  while (count >= LANES) {
    const low = loadFour<T>(input);
    const high = loadFour<T>(input + 4 * sizeof<T>());
    if (!isEightFinite<T, f32>(input, low, high)) nonFinite += countScalars<T>(input, LANES);
    input += LANES * sizeof<T>();
    count -= LANES;
  }
  return nonFinite + countScalars<T>(input, count);
}

// @ts-ignore: decorator
@inline
function isEightFinite<In, Out>(input: usize, low: v128, high: v128): bool {
  const zero = i32x4.splat(0);
  const sums = maxMagnitude(maxMagnitude(zero, low), high);
  const raws = maxRaw<In>(zero, input);
  return !v128.any_true(v128.or(beyondRange<Out>(sums), rawNonFinite<In>(raws)));
}

function castScalars<In, Out>(input: usize, output: usize, count: i32): i32 {
  let nonFinite = 0;
  for (let i = 0; i < count; i++) {
    const value = loadScalar<In>(input + <usize>i * sizeof<In>());
    nonFinite += storeScalar<Out>(output + <usize>i * sizeof<Out>(), value);
  }
  return nonFinite;
}

function countScalars<T>(input: usize, count: i32): i32 {
  let nonFinite = 0;
  for (let i = 0; i < count; i++) {
    const bits = reinterpret<i32>(loadScalar<T>(input + <usize>i * sizeof<T>()));
    nonFinite += i32((bits & ABS_MASK) >= nonFiniteFrom<f32>());
  }
  return nonFinite;
}
