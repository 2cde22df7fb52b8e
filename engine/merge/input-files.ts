import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { toReadError } from '../disk-errors.ts';
import { WeldlineError } from '../errors.ts';
import type { TensorReference } from '../plan/plan.ts';
import type { RemoteReads } from './read-request.ts';
import { isStreamedFile } from './streamed-input.ts';

/** Inputs that are read where they are, and how a thread does that. */
export interface RemoteFiles {
  readonly inputs: readonly string[];
  readonly reads: RemoteReads;
}

/** The files that a merge thread reads, each opened once. */
export class InputFiles {
  readonly #roots: Readonly<Record<string, string>>;
  readonly #remote: RemoteFiles | undefined;
  readonly #open = new Map<string, number>();

  /** @param roots directory of each input, by its id */
  constructor(roots: Readonly<Record<string, string>>, remote?: RemoteFiles) {
    this.#roots = roots;
    this.#remote = remote;
  }

  /**
   * Fills `into` from `offset` bytes into a tensor; it may reach beyond the tensor's end.
   * @throws WeldlineError `disk.read-failed`, `merge.input-changed` for a file that became shorter
   */
  read(tensor: TensorReference, offset: number, into: Uint8Array): void {
    const { input, file } = tensor;
    if (this.#remote?.inputs.includes(input) === true && isStreamedFile(file)) {
      this.#remote.reads.read(input, file, tensor.offset + offset, into);
      return;
    }
    const path = join(this.#roots[input] ?? '', file);
    try {
      readFully(this.#fileAt(path), path, tensor.offset + offset, into);
    } catch (error) {
      throw toReadError(error, path);
    }
  }

  close(): void {
    for (const file of this.#open.values()) closeSync(file);
  }

  #fileAt(path: string): number {
    let file = this.#open.get(path);
    if (file === undefined) {
      file = openSync(path, 'r');
      this.#open.set(path, file);
    }
    return file;
  }
}

function readFully(file: number, path: string, position: number, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(file, into, done, into.length - done, position + done);
    if (count === 0) {
      throw new WeldlineError(
        'merge.input-changed',
        `${path} became shorter while it was merged. Restore it and resume.`,
      );
    }
    done += count;
  }
}
