import { WeldlineError } from '../errors.ts';
import { waitForAnswer } from './merge-control.ts';

/**
 * What a thread asks of the main thread: bytes of an input that is elsewhere. Threads cannot wait for
 * a network; the main thread reads, into memory that both share.
 */
export interface ReadRequest {
  readonly kind: 'read';
  readonly input: string;
  readonly file: string;
  readonly position: number;
  readonly into: Uint8Array;
  /** Not 0 once the bytes are there. */
  readonly reply: Int32Array;
}

/** For bytes that are wanted in memory of the thread's own. */
const SHARED_BYTES_MAX = 1024 * 1024;

export function isReadRequest(message: { readonly kind: string }): message is ReadRequest {
  return message.kind === 'read';
}

export function answer(reply: Int32Array): void {
  Atomics.store(reply, 0, 1);
}

/** Reads of one thread, one after the other. */
export class RemoteReads {
  readonly #control: Int32Array;
  readonly #send: (request: ReadRequest) => void;
  readonly #reply = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  #shared: Uint8Array | undefined;

  /** @param control see `merge-control.ts` */
  constructor(control: Int32Array, send: (request: ReadRequest) => void) {
    this.#control = control;
    this.#send = send;
  }

  /** @throws WeldlineError `merge.worker-crashed` if the threads were stopped: the cause counts */
  read(input: string, file: string, position: number, into: Uint8Array): void {
    if (into.buffer instanceof SharedArrayBuffer) {
      this.#fill(input, file, position, into);
      return;
    }
    this.#shared ??= new Uint8Array(new SharedArrayBuffer(SHARED_BYTES_MAX));
    for (let done = 0; done < into.length; done += SHARED_BYTES_MAX) {
      const piece = this.#shared.subarray(0, Math.min(SHARED_BYTES_MAX, into.length - done));
      this.#fill(input, file, position + done, piece);
      into.set(piece, done);
    }
  }

  #fill(input: string, file: string, position: number, into: Uint8Array): void {
    const reply = this.#reply;
    Atomics.store(reply, 0, 0);
    this.#send({ kind: 'read', input, file, position, into, reply });
    if (waitForAnswer(this.#control, () => Atomics.load(reply, 0) !== 0)) return;
    throw new WeldlineError('merge.worker-crashed', `Reading ${file} was stopped.`);
  }
}
