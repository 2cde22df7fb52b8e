import { StringDecoder } from 'node:string_decoder';

/**
 * Cuts a stream of bytes into lines in bounded memory: what is longer than `lineLengthMax`
 * characters loses its end. A carriage return ends a line too, as progress bars use it. What is no
 * UTF-8 becomes replacement characters.
 */
export class LineSplitter {
  readonly #lineLengthMax: number;
  readonly #decoder = new StringDecoder('utf8');
  #line = '';
  #endedByReturn = false;

  constructor(lineLengthMax: number) {
    this.#lineLengthMax = lineLengthMax;
  }

  /** The lines that `chunk` completes. */
  push(chunk: Buffer): string[] {
    return this.#split(this.#decoder.write(chunk));
  }

  /** The lines that the end of the stream completes. */
  end(): string[] {
    const lines = this.#split(this.#decoder.end());
    return this.#line === '' ? lines : [...lines, this.#line];
  }

  #split(decoded: string): string[] {
    const text = this.#endedByReturn && decoded.startsWith('\n') ? decoded.slice(1) : decoded;
    if (decoded !== '') this.#endedByReturn = decoded.endsWith('\r');
    const lines = text.split(/\r\n|\r|\n/);
    for (const [index, line] of lines.entries()) {
      const before = index === 0 ? this.#line : '';
      lines[index] = before + line.slice(0, this.#lineLengthMax - before.length);
    }
    this.#line = lines.pop() ?? '';
    return lines;
  }
}
