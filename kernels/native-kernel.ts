import { createRequire } from 'node:module';
import type { ArenaSpec } from './arena.ts';
import type { KernelCode } from './arena-kernel.ts';
import { ArenaKernel, newArenaMemory } from './arena-kernel.ts';

/** `native/addon.c`. Before the arguments of `KernelCode` comes the memory that they are in. */
interface NativeAddon {
  pack(memory: Uint8Array, ...args: Parameters<KernelCode['pack']>): void;
  merge(
    memory: Uint8Array,
    input: number,
    output: number,
    left: number,
    right: number,
    rows: number,
    cols: number,
    rank: number,
    dtypeIn: number,
    dtypeOut: number,
    /** Rank and scale of each. */
    segments: Float64Array,
  ): number;
  cast(memory: Uint8Array, ...args: Parameters<KernelCode['cast']>): number;
  countNonFinite(memory: Uint8Array, ...args: Parameters<KernelCode['countNonFinite']>): number;
}

/** AVX2 without fused multiply-add, from C: the bytes of the other kernels, sooner. */
export class NativeKernel extends ArenaKernel {
  /** @throws Error if the addon cannot be loaded, or the processor cannot run it */
  constructor(addonPath: string, spec: ArenaSpec) {
    const memory = newArenaMemory(spec).buffer;
    super(spec, memory, bindCode(loadAddon(addonPath), new Uint8Array(memory)));
  }
}

/** Where the build for this platform is, from the folder of the kernels. */
export function addonName(): string {
  return `native/merge-${process.platform}-${process.arch}.node`;
}

/** Whether the addon is there, for this platform, and the processor can run it. */
export function canLoadAddon(path: string): boolean {
  try {
    loadAddon(path);
    return true;
  } catch {
    return false;
  }
}

function loadAddon(path: string): NativeAddon {
  const addon = createRequire(import.meta.url)(path) as Partial<NativeAddon>;
  if (addon.merge === undefined) throw new Error(`${path} needs a processor with AVX2 and F16C`);
  return addon as NativeAddon;
}

function bindCode(addon: NativeAddon, memory: Uint8Array): KernelCode {
  return {
    pack: (...args) => addon.pack(memory, ...args),
    cast: (...args) => addon.cast(memory, ...args),
    countNonFinite: (...args) => addon.countNonFinite(memory, ...args),
    merge: (input, output, left, right, rows, cols, segments, dtypeIn, dtypeOut) => {
      const table = new Float64Array(segments.flatMap(({ rank, scale }) => [rank, scale]));
      const rank = segments.reduce((sum, segment) => sum + segment.rank, 0);
      const areas = [input, output, left, right] as const;
      return addon.merge(memory, ...areas, rows, cols, rank, dtypeIn, dtypeOut, table);
    },
  };
}
