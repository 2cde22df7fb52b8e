/** Ways in which hubs, CDNs and the networks before them fail. */
export interface Fault {
  readonly kind: FaultKind;
  /** Which part of the service fails: listings, file addresses, or the storage behind them. */
  readonly target: Target;
  /** Only requests for a file whose path matches. */
  readonly path?: RegExp;
  /** How many requests it hits; one if not given. */
  readonly times?: number;
  /** Bytes of the body that still go out well. */
  readonly afterBytes?: number;
  /** For `status`. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** For `slow`. */
  readonly bytesPerSecond?: number;
}

export type FaultKind =
  /** Answers with `status` and `headers`. */
  | 'status'
  /** Goes silent after `afterBytes`, the connection stays open. */
  | 'stall'
  /** Cuts the connection after `afterBytes`. */
  | 'drop'
  /** Ends the body in good order after `afterBytes`, without having announced its length. */
  | 'short'
  /** Turns over the bits of the byte at `afterBytes`. */
  | 'corrupt'
  /** Names another ETag. */
  | 'etag'
  /** Answers 200 with the whole file, whatever range was asked for. */
  | 'ignore-range'
  | 'slow';

export type Target = 'api' | 'resolve' | 'storage';

export class FaultList {
  readonly #faults: { fault: Fault; left: number }[] = [];

  add(fault: Fault): void {
    this.#faults.push({ fault, left: fault.times ?? 1 });
  }

  clear(): void {
    this.#faults.length = 0;
  }

  /** The first fault that is due for a request, used up by one. */
  take(target: Target, path: string): Fault | undefined {
    const due = this.#faults.find(
      ({ fault, left }) =>
        left > 0 && fault.target === target && (fault.path === undefined || fault.path.test(path)),
    );
    if (due === undefined) return undefined;
    due.left -= 1;
    return due.fault;
  }
}
