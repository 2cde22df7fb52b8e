/** Element types of the kernels, little-endian as in safetensors files. */
export type FloatDtype = 'bf16' | 'f16' | 'f32';

export const ELEMENT_BYTES: Readonly<Record<FloatDtype, number>> = { bf16: 2, f16: 2, f32: 4 };

/** Numbers of the types at the boundary; `assembly/dtypes.ts` holds the same. */
export const DTYPE_CODES: Readonly<Record<FloatDtype, number>> = { bf16: 0, f16: 1, f32: 2 };
