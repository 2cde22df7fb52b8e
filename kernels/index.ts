/**
 * The merge kernel, in three forms that give the same bytes: native code where the package has it
 * for the platform, WebAssembly SIMD, and a scalar stand-in for runtimes without that. Compile
 * once, post the module to worker threads, create one kernel in each.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { ArenaSpec } from './arena.ts';
import { ELEMENT_BYTES, type FloatDtype } from './dtypes.ts';
import type { MergeKernel } from './merge-kernel.ts';
import { addonName, canLoadAddon, NativeKernel } from './native-kernel.ts';
import { loadElement, ReferenceKernel, storeElement } from './reference.ts';
import { WasmKernel } from './wasm-kernel.ts';

export type { ArenaSpec } from './arena.ts';
export { arenaBytes, packedLeftBytes, packedRightBytes } from './arena.ts';
export type { FloatDtype } from './dtypes.ts';
export { ELEMENT_BYTES } from './dtypes.ts';
export type { FactorBlock, MergeKernel, MergeSegment } from './merge-kernel.ts';
export { loadElement, storeElement } from './reference.ts';

/** May be posted to threads of this process. */
export type KernelModule =
  | { readonly kind: 'native'; readonly addonPath: string }
  | { readonly kind: 'wasm'; readonly module: WebAssembly.Module }
  | { readonly kind: 'scalar' };

export type KernelKind = KernelModule['kind'];

export interface KernelChoice {
  /** Default: the first of native, WebAssembly and scalar that works here. */
  readonly kind?: KernelKind;
  /** Where the built kernels are; ends with a slash. Default: beside this file. */
  readonly folder?: URL;
}

export class KernelMissingError extends Error {
  override readonly name = 'KernelMissingError';
}

/** The smallest module that needs SIMD: one function, `i32.const 0; i8x16.splat; drop`. */
const SIMD_PROBE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 0x41, 0, 0xfd,
  15, 0x1a, 0x0b,
]);

/** @throws KernelMissingError if a kernel that was asked for, or the WebAssembly, is not there */
export async function compileKernel({
  kind,
  folder = new URL('./', import.meta.url),
}: KernelChoice = {}): Promise<KernelModule> {
  if (kind === 'scalar') return { kind };
  if (kind !== 'wasm') {
    const addonPath = fileURLToPath(new URL(addonName(), folder));
    if (canLoadAddon(addonPath)) return { kind: 'native', addonPath };
    if (kind === 'native') {
      throw new KernelMissingError(
        `There is no native kernel for this computer at ${addonPath}: run \`npm run build:native\`, ` +
          'or leave the choice of the kernel open.',
      );
    }
  }
  if (WebAssembly.validate(SIMD_PROBE)) {
    return { kind: 'wasm', module: await compileWasm(new URL('merge.wasm', folder)) };
  }
  if (kind === 'wasm') throw new KernelMissingError('This runtime has no WebAssembly SIMD.');
  return { kind: 'scalar' };
}

async function compileWasm(url: URL): Promise<WebAssembly.Module> {
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
  if (module.kind === 'native') return new NativeKernel(module.addonPath, spec);
  if (module.kind === 'wasm') return new WasmKernel(module.module, spec);
  return new ReferenceKernel(spec);
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

/**
 * Casts stored elements as the kernels do, one by one: for a few of them.
 * @param bytes whole elements, at any alignment
 */
export function castElements(
  bytes: Uint8Array,
  dtypeIn: FloatDtype,
  dtypeOut: FloatDtype,
): { readonly bytes: Uint8Array; readonly nonFinite: number } {
  const values = decodeElements(bytes, dtypeIn);
  const size = ELEMENT_BYTES[dtypeOut];
  const cast = new DataView(new ArrayBuffer(values.length * size));
  let nonFinite = 0;
  for (const [i, value] of values.entries()) {
    if (!storeElement(cast, i * size, dtypeOut, value)) nonFinite++;
  }
  return { bytes: new Uint8Array(cast.buffer), nonFinite };
}
