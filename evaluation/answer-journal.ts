import { type FileHandle, open, readFile } from 'node:fs/promises';
import { z } from 'zod';
import { toReadError, toWriteError } from '../engine/disk-errors.ts';
import { systemErrorCode } from '../engine/errors.ts';
import type { Answer } from './runner.ts';

/** A power cut loses at most so many answers; the end of the process loses none. */
const ANSWERS_PER_SYNC = 32;

const lineSchema = z.object({ index: z.number().int().nonnegative(), text: z.string() });

/**
 * The answers of one model to one suite, as they come: lines of JSON that are only ever appended. So
 * two attempts at once may write to it, and a line that a crash cut off spoils nothing but itself.
 */
export class AnswerJournal {
  readonly #path: string;
  readonly #handle: FileHandle;
  #unsynced = 0;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  /** @throws WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed` */
  static async open(path: string): Promise<AnswerJournal> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'a');
      // Whatever the last writer left behind, a new line begins here. Empty ones do not count.
      await handle.appendFile('\n');
      return new AnswerJournal(path, handle);
    } catch (error) {
      await handle?.close();
      throw toWriteError(error, path);
    }
  }

  /**
   * The answers that are in a journal, by index; none if there is no journal. Of two for one prompt
   * the first counts.
   *
   * @throws WeldlineError `disk.read-failed`
   */
  static async read(path: string): Promise<Map<number, string>> {
    const answers = new Map<number, string>();
    let content = '';
    try {
      content = await readFile(path, 'utf8');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw toReadError(error, path);
    }
    // What follows the last line end was cut off, or is being written.
    for (const line of content.split('\n').slice(0, -1)) {
      const answer = parseLine(line);
      if (answer !== undefined && !answers.has(answer.index))
        answers.set(answer.index, answer.text);
    }
    return answers;
  }

  /** The line is in the file when this resolves. */
  async append({ index, text }: Answer): Promise<void> {
    try {
      await this.#handle.appendFile(`${JSON.stringify({ index, text })}\n`);
      this.#unsynced += 1;
      if (this.#unsynced < ANSWERS_PER_SYNC) return;
      this.#unsynced = 0;
      await this.#handle.datasync();
    } catch (error) {
      throw toWriteError(error, this.#path);
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function parseLine(line: string): z.infer<typeof lineSchema> | undefined {
  try {
    return lineSchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}
