/** The worker thread that combines factors: takes tensors from a shared counter. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { toWriteError } from '../disk-errors.ts';
import { assert, WeldlineError } from '../errors.ts';
import { combineFactors } from '../factors/combine-factors.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import { InputFiles } from './input-files.ts';
import { isStopped, takeNext } from './merge-control.ts';
import { asThread } from './run-threads.ts';

export interface CombiningTask {
  readonly tensor: PlannedTensor;
  /** Where its factors go, A before B. */
  readonly offset: number;
}

export interface FactorWorkerData {
  readonly tasks: readonly CombiningTask[];
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** The file of combined factors. */
  readonly path: string;
  /** See `merge-control.ts`; tensors take the place of windows. */
  readonly control: SharedArrayBuffer;
}

export interface CombinedMessage {
  readonly kind: 'combined';
  readonly tensor: string;
}

function run(data: FactorWorkerData, report: (message: CombinedMessage) => void): void {
  const control = new Int32Array(data.control);
  const files = new InputFiles(data.roots);
  const output = openSync(data.path, 'r+');
  try {
    while (!isStopped(control)) {
      const task = data.tasks[takeNext(control)];
      if (task === undefined) return;
      combine(task, files, (bytes, offset) => writeFully(output, data.path, bytes, offset));
      report({ kind: 'combined', tensor: task.tensor.name });
    }
  } finally {
    closeSync(output);
    files.close();
  }
}

function combine(
  { tensor, offset }: CombiningTask,
  files: InputFiles,
  write: (bytes: Uint8Array, offset: number) => void,
): void {
  const { deltas = [], combined } = tensor;
  assert(combined !== undefined, `the deltas of ${tensor.name} are not combined`);
  const { a, b } = combineFactors(deltas, combined, (reference) => {
    const bytes = new Uint8Array(reference.byteLength);
    files.read(reference, 0, bytes);
    return bytes;
  });
  for (const factor of [a, b]) {
    if (factor.every(Number.isFinite)) continue;
    throw new WeldlineError(
      'merge.non-finite',
      `The factors of "${tensor.name}" are beyond float32 once they are combined. The adapters or ` +
        'their weights are too large; check both.',
    );
  }
  write(new Uint8Array(a.buffer), offset);
  write(new Uint8Array(b.buffer), offset + a.byteLength);
}

function writeFully(file: number, path: string, bytes: Uint8Array, position: number): void {
  try {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(file, bytes, done, bytes.length - done, position + done);
    }
  } catch (error) {
    throw toWriteError(error, path);
  }
}

asThread(run);
