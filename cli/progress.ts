import { formatBytes, formatDuration } from './format.ts';
import { printable } from './printable.ts';

/** Redraws and lines no more often than this: a terminal is not a video. */
const REDRAW_INTERVAL_MS = 100;
const LINE_INTERVAL_MS = 10_000;

const BAR_WIDTH = 24;

/** For terminals that do not know their width: some say undefined, some 0. */
const COLUMNS_DEFAULT = 80;

export interface ProgressState {
  readonly label: string;
  readonly item: string;
  readonly bytesDone: number;
  /** 0 where it is not known. */
  readonly bytesTotal: number;
  /** 0 to 1, of work that is not counted in bytes. */
  readonly fraction?: number | undefined;
}

/**
 * Progress on standard error: one line that is redrawn in a terminal, a plain line now and then in
 * a pipe.
 */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  #label = '';
  #startedAt = 0;
  #startBytes = 0;
  #drawnAt = 0;
  #drawn = false;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
  }

  update(state: ProgressState): void {
    const now = performance.now();
    if (state.label !== this.#label) {
      this.#label = state.label;
      this.#startedAt = now;
      this.#startBytes = state.bytesDone;
      this.#drawnAt = this.#stream.isTTY ? 0 : now;
    }
    const interval = this.#stream.isTTY ? REDRAW_INTERVAL_MS : LINE_INTERVAL_MS;
    if (now - this.#drawnAt < interval) return;
    this.#drawnAt = now;
    this.show(printable(this.#format(state, now)));
  }

  /** A line as it is: redrawn in a terminal, plain in a pipe. */
  show(line: string): void {
    if (this.#stream.isTTY) {
      this.#stream.write(
        `\r\x1b[2K${line.slice(0, (this.#stream.columns || COLUMNS_DEFAULT) - 1)}`,
      );
      this.#drawn = true;
    } else {
      this.#stream.write(`${line}\n`);
    }
  }

  /** Removes the bar, so that other lines can be written. */
  clear(): void {
    if (this.#drawn) this.#stream.write('\r\x1b[2K');
    this.#drawn = false;
  }

  #format(state: ProgressState, now: number): string {
    const { label, item, bytesDone, bytesTotal } = state;
    const seconds = (now - this.#startedAt) / 1000;
    const rate = seconds > 0.5 ? (bytesDone - this.#startBytes) / seconds : 0;
    const parts = [label];
    const fraction = bytesTotal > 0 ? bytesDone / bytesTotal : state.fraction;
    if (fraction !== undefined) {
      const share = Math.min(1, fraction);
      const filled = Math.round(share * BAR_WIDTH);
      if (this.#stream.isTTY) {
        parts.push(`[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}]`);
      }
      parts.push(`${Math.floor(share * 100)}%`);
    }
    if (bytesTotal > 0) {
      parts.push(`${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`);
    } else if (bytesDone > 0) {
      parts.push(formatBytes(bytesDone));
    }
    if (rate > 0) parts.push(`${formatBytes(rate)}/s`);
    if (rate > 0 && bytesTotal > bytesDone) {
      parts.push(`${formatDuration(((bytesTotal - bytesDone) / rate) * 1000)} left`);
    }
    if (item !== '') parts.push(item);
    // A program that is starting tells nothing; a log should show that it is waited for.
    if (parts.length === 1 && !this.#stream.isTTY) parts.push(formatDuration(1000 * seconds));
    return parts.join('  ');
  }
}
