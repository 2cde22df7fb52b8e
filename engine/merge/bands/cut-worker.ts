/** The worker thread that finds cuts: takes deltas from a shared counter until none are left. */
import type { ArenaSpec, KernelModule } from '../../../kernels/index.ts';
import { InputFiles } from '../input-files.ts';
import { isStopped, takeNext } from '../merge-control.ts';
import { asThread } from '../run-threads.ts';
import { checkCut } from './check-cut.ts';
import { DenseDeltas } from './dense-deltas.ts';
import { type Cut, type DeltaRows, findCut } from './find-cut.ts';
import { type CutJob, deltaRows } from './find-cuts.ts';

export interface CutWorkerData {
  readonly module: KernelModule;
  /** Of the kernel that makes rows of a delta. */
  readonly arena: ArenaSpec;
  readonly jobs: readonly CutJob[];
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** See `merge-control.ts`. */
  readonly control: SharedArrayBuffer;
  /** Whether each cut is looked at once more (`checkCut`). */
  readonly isChecked: boolean;
}

export interface CutMessage {
  readonly kind: 'cut';
  readonly index: number;
  readonly cut: Cut;
}

function run(data: CutWorkerData, report: (message: CutMessage) => void): void {
  const control = new Int32Array(data.control);
  const files = new InputFiles(data.roots);
  try {
    const dense = new DenseDeltas(data.module, data.arena, files);
    while (!isStopped(control)) {
      const index = takeNext(control);
      const job = data.jobs[index];
      if (job === undefined) return;
      const rows = stoppable(deltaRows(dense, job), control);
      try {
        const cut = findCut(rows, job.keep);
        if (data.isChecked) checkCut(rows, cut, job.keep, job.tensor.name);
        report({ kind: 'cut', index, cut });
      } catch (error) {
        if (!(error instanceof Stopped)) throw error;
      }
    }
  } finally {
    files.close();
  }
}

class Stopped extends Error {
  override readonly name = 'Stopped';
}

/** A large delta takes seconds: stops in the middle of it. */
function stoppable(rows: DeltaRows, control: Int32Array): DeltaRows {
  const make: DeltaRows['make'] = (begin, count) => {
    if (isStopped(control)) throw new Stopped();
    return rows.make(begin, count);
  };
  return { ...rows, make };
}

asThread(run);
