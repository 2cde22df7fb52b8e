import type { FloatDtype } from '../../kernels/index.ts';

/**
 * Bits per element of every dtype in the safetensors format (its `Dtype` enumeration, version 0.8).
 * Sub-byte types are stored packed, so a tensor's bit count must be a multiple of eight.
 */
const BITS_BY_DTYPE = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type Dtype = keyof typeof BITS_BY_DTYPE;

/** The dtypes that can be merged into and cast between. */
export type MergeDtype = 'BF16' | 'F16' | 'F32';

/** The same dtypes as recipes, the command line and config.json name them (PyTorch's names). */
export type TorchDtype = 'bfloat16' | 'float16' | 'float32';

export function isDtype(value: unknown): value is Dtype {
  return typeof value === 'string' && Object.hasOwn(BITS_BY_DTYPE, value);
}

export function isMergeDtype(dtype: Dtype): dtype is MergeDtype {
  return dtype === 'BF16' || dtype === 'F16' || dtype === 'F32';
}

export function bitsOf(dtype: Dtype): number {
  return BITS_BY_DTYPE[dtype];
}

/** Bytes per element of a dtype that can be merged. */
export function bytesOf(dtype: MergeDtype): number {
  return BITS_BY_DTYPE[dtype] / 8;
}

export const DTYPE_BY_TORCH_NAME: Readonly<Record<TorchDtype, MergeDtype>> = {
  bfloat16: 'BF16',
  float16: 'F16',
  float32: 'F32',
};

export const KERNEL_DTYPE: Readonly<Record<MergeDtype, FloatDtype>> = {
  BF16: 'bf16',
  F16: 'f16',
  F32: 'f32',
};

/** Number of elements of a shape; a scalar (`[]`) has one. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}
