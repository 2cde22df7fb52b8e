import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import type { ByteRange } from './chunks.ts';

/**
 * The journal of an output shard: lines of JSON, appended after the bytes they speak of are on
 * disk. The first line names the plan and the shard; each further one a range of bytes of a tensor
 * with its CRC-32; a finished shard ends with its size and SHA-256.
 *
 * Its ranges do not depend on how a later attempt cuts the shard into chunks.
 */
const headSchema = z.object({ journal: z.literal(1), plan: z.string(), shard: z.string() });

const rangeSchema = z.object({
  tensor: z.string(),
  begin: z.number().int().nonnegative(),
  end: z.number().int().nonnegative(),
  crc32: z.number().int().nonnegative(),
  /** Which state of the inputs the bytes were made from: see `input-state.ts`. */
  inputs: z.string(),
});

const completeSchema = z.object({
  size: z.number().int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

export type JournalHead = z.infer<typeof headSchema>;
export type WrittenRange = z.infer<typeof rangeSchema>;
export type CompletedShard = z.infer<typeof completeSchema>;

export interface JournalState {
  readonly ranges: readonly WrittenRange[];
  readonly complete: CompletedShard | undefined;
  /** Bytes up to the end of the last sound line: what to cut the file to before appending. */
  readonly soundBytes: number;
}

export function formatLine(line: JournalHead | WrittenRange | CompletedShard): string {
  return `${JSON.stringify(line)}\n`;
}

/**
 * Reads a journal. A crash can cut or garble its end; what stands before is believed (and verified
 * against the data by the caller), the rest is dropped.
 *
 * @returns undefined if there is none, or not even its first line is sound
 * @throws WeldlineError `journal.invalid` if it belongs to another plan or shard
 */
export async function readJournal(
  path: string,
  expected: JournalHead,
): Promise<JournalState | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new WeldlineError('disk.read-failed', `The journal ${path} cannot be read.`, {
      cause: error,
    });
  }
  return parseJournal(bytes.toString('utf8'), path, expected);
}

export function parseJournal(
  text: string,
  path: string,
  expected: JournalHead,
): JournalState | undefined {
  const ranges: WrittenRange[] = [];
  let complete: CompletedShard | undefined;
  let soundBytes = 0;
  for (const line of text.split('\n').slice(0, -1)) {
    const value = parseLine(line);
    if (soundBytes === 0) {
      const head = headSchema.safeParse(value);
      if (!head.success) return undefined;
      if (head.data.plan !== expected.plan || head.data.shard !== expected.shard) {
        throw new WeldlineError(
          'journal.invalid',
          `${path} belongs to another merge (plan ${head.data.plan.slice(0, 12)}). Move it away.`,
        );
      }
    } else {
      const range = rangeSchema.safeParse(value);
      const end = completeSchema.safeParse(value);
      if (range.success) ranges.push(range.data);
      else if (end.success) complete = end.data;
      else break;
    }
    soundBytes += Buffer.byteLength(line) + 1;
  }
  return soundBytes === 0 ? undefined : { ranges, complete, soundBytes };
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Joins ranges that touch or overlap, in ascending order. */
export function joinRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const joined: { begin: number; end: number }[] = [];
  for (const { begin, end } of [...ranges].sort((a, b) => a.begin - b.begin)) {
    const last = joined.at(-1);
    if (last !== undefined && begin <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ begin, end });
  }
  return joined;
}

/** Whether `range` lies within one of `joined` (ascending, disjoint). */
export function isCovered(joined: readonly ByteRange[], range: ByteRange): boolean {
  let low = 0;
  let high = joined.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((joined[middle] as ByteRange).begin <= range.begin) low = middle + 1;
    else high = middle;
  }
  const candidate = joined[low - 1];
  return candidate !== undefined && range.end <= candidate.end;
}
