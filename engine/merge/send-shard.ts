import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { assert, WeldlineError } from '../errors.ts';
import { readAhead } from '../read-ahead.ts';
import { withCombinedFactors } from './combined-factors.ts';
import { readInputState } from './input-state.ts';
import {
  type CompletedShard,
  formatLine,
  type JournalHead,
  type JournalledPart,
  type JournalState,
  readJournal,
} from './journal.ts';
import { makeWindows } from './make-windows.ts';
import { createControl, letGo } from './merge-control.ts';
import { PartSender } from './part-sender.ts';
import { journalPathOf, openJournal } from './shard-file.ts';
import { type MergeShardOptions, reportProgress } from './shard-options.ts';
import type { SentFile, SentPart, ShardSink, ShardUpload } from './shard-sink.ts';

/** Of parts in memory, where nobody has counted what the budget allows. */
const PARTS_DEFAULT = 2;

interface SendOptions extends MergeShardOptions {
  readonly sink: ShardSink;
  readonly signal: AbortSignal;
}

/** What an earlier attempt has sent, and where it goes on. */
interface ResumedUpload {
  readonly upload: ShardUpload;
  /** The first parts of the file, without a gap. */
  readonly parts: readonly SentPart[];
  /** Parts behind the gap, by number: they are made again, but not sent. */
  readonly known: ReadonlyMap<number, SentPart>;
}

/**
 * Merges one output shard and sends it away in parts as it is made; of its bytes nothing is written to
 * this machine's disk. Goes on after the last part that an earlier attempt has sent and that the place
 * still has. Idempotent.
 *
 * @returns size and SHA-256 of the shard
 * @throws WeldlineError `merge.*`, `disk.*`, what the sink throws; the signal's reason if it is aborted
 */
export async function sendShard(options: SendOptions): Promise<CompletedShard> {
  const { plan, planDigest, shard, roots, streamed, directory } = options;
  const inputs = await readInputState(plan, shard, roots, streamed);
  const head: JournalHead = { journal: 2, plan: planDigest, shard: shard.file };
  const path = journalPathOf(directory, shard);
  await mkdir(dirname(path), { recursive: true });
  const state = await readJournal(path, head);
  const journal = await openJournal(path, head, state);
  let appending: Promise<void> = Promise.resolve();
  const append = (line: JournalledPart | CompletedShard): Promise<void> => {
    appending = appending.then(() => journal.appendFile(formatLine(line)));
    // Thrown by the last one who waits for it.
    appending.catch(() => undefined);
    return appending;
  };
  try {
    const sent = await findSent(options, state, inputs);
    const result = sent ?? (await sendWindows(options, state, inputs, append));
    if ((await readInputState(plan, shard, roots, streamed)) !== inputs) {
      throw inputChanged(shard.file);
    }
    const { size, sha256, etag } = result;
    // What is published already needs no note.
    const isPublished = sent !== undefined && state === undefined;
    const known = { size, sha256, etag };
    if (!isPublished) await options.sink.record(shard.file, known, options.signal);
    await append({ size, sha256, etag });
    await journal.sync();
    return { size, sha256 };
  } finally {
    await appending.catch(() => undefined);
    await journal.close();
  }
}

type SentShard = CompletedShard & SentFile;

/**
 * A shard that an earlier attempt sent as a whole. Where that attempt ended before it was journalled,
 * reading it tells what it is.
 */
async function findSent(
  options: SendOptions,
  state: JournalState | undefined,
  inputs: string,
): Promise<SentShard | undefined> {
  const { sink, shard, signal } = options;
  // A workspace that was removed, or another machine's.
  if (state === undefined) return sink.findPublished(shard.file, signal);
  const parts = uploadsOf(options, state, inputs).find((each) => bytesOf(each) === shard.size);
  if (parts === undefined) return undefined;
  const there = await sink.find(shard.file, signal);
  if (there?.size !== shard.size) return undefined;
  const { complete: known } = state ?? {};
  if (known !== undefined && known.etag === there.etag) return { ...there, sha256: known.sha256 };
  const sha256 = await readBack(options, there, parts);
  return sha256 === undefined ? undefined : { ...there, sha256 };
}

async function sendWindows(
  options: SendOptions,
  state: JournalState | undefined,
  inputs: string,
  append: (line: JournalledPart) => Promise<void>,
): Promise<SentShard> {
  const { shard, sink, resources, signal } = options;
  const { upload, parts: before, known } = await resumeUpload(options, state, inputs);
  const partBytes = sink.partBytesFor(shard.size);
  const begin = bytesOf(before);
  const windows = { begin, windowBytes: resources.windowBytes, size: shard.size };
  const control = createControl();
  const failing = new AbortController();
  const hash = begin === 0 ? createHash('sha256') : undefined;
  const parts = [...before];
  let bytesSent = begin;
  reportProgress(options, begin);
  const sender = new PartSender({
    ...{ upload, partBytes, size: shard.size, begin, known, hash },
    partsMax: resources.streaming?.parts ?? PARTS_DEFAULT,
    onTaken: (count) => letGo(new Int32Array(control), count),
    onSent: (part) => {
      parts.push(part);
      bytesSent += part.size;
      reportProgress(options, bytesSent);
      void append({ ...part, upload: upload.id, inputs });
    },
    onFailure: (error) => failing.abort(error),
  });
  const either = { ...options, signal: AbortSignal.any([signal, failing.signal]) };
  try {
    await withCombinedFactors(either, begin, (ready) =>
      makeWindows(ready, {
        ...{ windows, control, isHashed: true },
        onWindow: (message) => {
          if (message.kind === 'made') sender.add(message.index, message.bytes);
        },
      }),
    );
  } finally {
    // Also where threads failed: what has arrived is journalled.
    await sender.settle().catch((error: unknown) => failing.abort(error));
  }
  if (failing.signal.aborted) throw failing.signal.reason;
  parts.sort((a, b) => a.number - b.number);
  assert(bytesOf(parts) === shard.size, `parts of ${shard.file} are missing`);
  return complete(options, upload, parts, hash?.digest('hex'));
}

/** @param sha256 of the whole; undefined where an earlier attempt has sent its beginning */
async function complete(
  options: SendOptions,
  upload: ShardUpload,
  parts: readonly SentPart[],
  sha256: string | undefined,
): Promise<SentShard> {
  const { shard, sink, signal } = options;
  const failure = await upload.complete(parts).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  signal.throwIfAborted();
  // Another attempt, which was thought dead, may have completed it meanwhile.
  const there = await sink.find(shard.file, signal);
  if (there?.size !== shard.size) throw failure?.error ?? changedThere(sink, shard.file);
  if (failure === undefined && sha256 !== undefined) return { ...there, sha256 };
  const found = await readBack(options, there, parts);
  if (found === undefined) throw failure?.error ?? changedThere(sink, shard.file);
  return { ...there, sha256: found };
}

/**
 * Reads a whole file back and compares it with the parts that were sent: the SHA-256 of a file is a chain,
 * and what an attempt knew of it ended with its process.
 *
 * @returns the SHA-256 of the file; undefined if it is not made of these parts
 */
async function readBack(
  { sink, shard, signal }: SendOptions,
  there: SentFile,
  parts: readonly SentPart[],
): Promise<string | undefined> {
  const source = sink.read(shard.file, there);
  const hash = createHash('sha256');
  try {
    const partBytes = sink.partBytesFor(shard.size);
    for await (const { bytes, offset } of readAhead(source, partBytes, signal)) {
      const part = parts[offset / partBytes];
      if (createHash('sha256').update(bytes).digest('hex') !== part?.sha256) return undefined;
      hash.update(bytes);
    }
    return hash.digest('hex');
  } finally {
    await source.close();
  }
}

/** Goes on with the upload of which the most is journalled and there; else begins one. */
async function resumeUpload(
  options: SendOptions,
  state: JournalState | undefined,
  inputs: string,
): Promise<ResumedUpload> {
  const { sink, shard, signal } = options;
  const [journalled] = uploadsOf(options, state, inputs);
  const id = journalled?.[0]?.upload;
  if (journalled !== undefined && id !== undefined) {
    const upload = await sink.open(shard.file, id, signal);
    const there = await upload.parts();
    const held = journalled.filter(({ number, size, etag }) => {
      const part = there.get(number);
      return part?.etag === etag && part.size === size;
    });
    const parts = held.filter(({ number }, index) => number === index + 1);
    const known = new Map(held.slice(parts.length).map((part) => [part.number, part]));
    if (held.length > 0) return { upload, parts, known };
  }
  const upload = await sink.open(shard.file, undefined, signal);
  return { upload, parts: [], known: new Map() };
}

/** By upload, what is journalled of its parts, in their order; the most first. */
function uploadsOf(
  { sink, shard }: SendOptions,
  state: JournalState | undefined,
  inputs: string,
): readonly JournalledPart[][] {
  const byUpload = new Map<string, Map<number, JournalledPart>>();
  const partBytes = sink.partBytesFor(shard.size);
  for (const part of state?.parts ?? []) {
    const begin = (part.number - 1) * partBytes;
    if (part.inputs !== inputs || part.size !== Math.min(partBytes, shard.size - begin)) continue;
    const parts = byUpload.get(part.upload) ?? new Map<number, JournalledPart>();
    // Sent again, the last one counts.
    byUpload.set(part.upload, parts.set(part.number, part));
  }
  return [...byUpload.values()]
    .map((parts) => [...parts.values()].sort((a, b) => a.number - b.number))
    .sort((a, b) => b.length - a.length);
}

function bytesOf(parts: readonly SentFile[]): number {
  return parts.reduce((sum, { size }) => sum + size, 0);
}

function changedThere({ name }: ShardSink, file: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${name}/${file} is not what was sent. Look for whatever else writes there, and run again.`,
  );
}

function inputChanged(file: string): WeldlineError {
  return new WeldlineError(
    'merge.input-changed',
    `An input of ${file} was written to or replaced while it was merged. Leave the inputs alone and ` +
      'run again; what was made of the changed file is not used.',
  );
}
