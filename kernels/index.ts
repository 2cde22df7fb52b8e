/**
 * The merge kernel: arithmetic in WebAssembly SIMD, with a scalar stand-in where the runtime has
 * none. Compile once, post the module to worker threads, create one kernel in each.
 */
import { readFile } from 'node:fs/promises';
import type { ArenaSpec } from './arena.ts';
import { ELEMENT_BYTES, type FloatDtype } from './dtypes.ts';
import type { MergeKernel } from './merge-kernel.ts';
import { loadElement, ReferenceKernel } from './reference.ts';
import { WasmKernel } from './wasm-kernel.ts';

export type { ArenaSpec } from './arena.ts';
export { arenaBytes, packedLeftBytes, packedRightBytes } from './arena.ts';
export type { FloatDtype } from './dtypes.ts';
export { ELEMENT_BYTES } from './dtypes.ts';
export type { FactorBlock, MergeKernel, MergeSegment } from './merge-kernel.ts';

/** A compiled module, or `scalar` where the runtime has no SIMD. May be posted to threads. */
export type KernelModule = WebAssembly.Module | 'scalar';

export class KernelMissingError extends Error {
  override readonly name = 'KernelMissingError';
}

/** The smallest module that needs SIMD: one function, `i32.const 0; i8x16.splat; drop`. */
const SIMD_PROBE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 0x41, 0, 0xfd,
  15, 0x1a, 0x0b,
]);

/** @throws KernelMissingError if the module was never built */
export async function compileKernel(
  url: URL = new URL('./merge.wasm', import.meta.url),
): Promise<KernelModule> {
  if (!WebAssembly.validate(SIMD_PROBE)) return 'scalar';
  let bytes: Uint8Array;
  try {
    bytes = await readFile(url);
  } catch (cause) {
    const message = `The merge kernel is missing at ${url.pathname}: run \`npm run build:kernel\`.`;
    throw new KernelMissingError(message, { cause });
  }
  return WebAssembly.compile(bytes);
}

export function createKernel(module: KernelModule, spec: ArenaSpec): MergeKernel {
  return module === 'scalar' ? new ReferenceKernel(spec) : new WasmKernel(module, spec);
}

/**
 * The values of stored elements, exactly: for looking at weights, not for computing with them.
 * @param bytes whole elements, at any alignment
 */
export function decodeElements(bytes: Uint8Array, dtype: FloatDtype): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = ELEMENT_BYTES[dtype];
  const values = new Float64Array(bytes.byteLength / size);
  for (let i = 0; i < values.length; i++) values[i] = loadElement(view, i * size, dtype);
  return values;
}
