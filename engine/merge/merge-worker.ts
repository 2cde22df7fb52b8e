/** The worker thread of a merge: takes windows from a shared counter until none are left. */
import { type ArenaSpec, createKernel, type KernelModule } from '../../kernels/index.ts';
import type { PlannedShard } from '../plan/plan.ts';
import type { BandArenas } from './arena-sizes.ts';
import { BandMaker } from './bands/band-maker.ts';
import type { SharedNorms } from './bands/column-norms.ts';
import type { Cuts } from './bands/find-cuts.ts';
import { InputFiles } from './input-files.ts';
import { isStopped, takeNext, waitUntilHashed } from './merge-control.ts';
import { type ReadRequest, RemoteReads } from './read-request.ts';
import { asThread } from './run-threads.ts';
import { WindowMaker } from './window-maker.ts';
import { WindowWriter } from './window-writer.ts';
import { type WindowCut, windowAt, windowCount } from './windows.ts';

export interface MergeWorkerData {
  readonly module: KernelModule;
  readonly arena: ArenaSpec;
  readonly bands: BandArenas | undefined;
  /** What stays of deltas that are thinned out to their largest elements. */
  readonly cuts: Cuts;
  readonly norms: SharedNorms;
  readonly windowOffset: number;
  readonly shard: PlannedShard;
  readonly header: Uint8Array;
  readonly windows: WindowCut;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** Ids of the inputs whose weights the main thread reads. */
  readonly streamed: readonly string[];
  /** Where what was made is written; undefined where whoever hashes it takes it, too. */
  readonly outputPath: string | undefined;
  /** See `merge-control.ts`. */
  readonly control: SharedArrayBuffer;
  /** Whether somebody looks at each window before its memory is used again. */
  readonly isHashed: boolean;
}

export type WindowMessage =
  /** The bytes of a window are there, in the thread's memory, and stay until they were hashed. */
  | { readonly kind: 'made'; readonly index: number; readonly bytes: Uint8Array }
  | { readonly kind: 'written'; readonly index: number; readonly isDirect: boolean };

function run(data: MergeWorkerData, report: (message: WindowMessage | ReadRequest) => void): void {
  const control = new Int32Array(data.control);
  const reads = new RemoteReads(control, report);
  const files = new InputFiles(data.roots, { inputs: data.streamed, reads });
  const writer = data.outputPath === undefined ? undefined : new WindowWriter(data.outputPath);
  try {
    const kernel = createKernel(data.module, data.arena);
    const bands =
      data.bands && new BandMaker(data.module, data.bands, files, data.cuts, data.norms);
    const maker = new WindowMaker(data.shard, data.header, kernel, data.windowOffset, files, bands);
    const count = windowCount(data.windows);
    while (!isStopped(control)) {
      const index = takeNext(control);
      if (index >= count) return;
      const window = windowAt(data.windows, index);
      const bytes = maker.make(window);
      if (data.isHashed) report({ kind: 'made', index, bytes });
      if (writer !== undefined) {
        writer.write(bytes, window.begin);
        report({ kind: 'written', index, isDirect: writer.isDirect });
      }
      if (data.isHashed) waitUntilHashed(control, index);
    }
  } finally {
    writer?.close();
    files.close();
  }
}

asThread(run);
