import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { toWriteError } from '../engine/disk-errors.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { Distributions } from './runner.ts';

/**
 * Positions of a text worth asking a runner for: its last ones, where the answer is. A row has 4
 * bytes for each token of the vocabulary, half a megabyte for many models.
 */
export const POSITIONS_PER_TEXT_MAX = 64;
/** What is kept of one suite: 2000 positions of a vocabulary of 128 thousand. Later texts are not compared. */
export const STORE_BYTES_MAX = 1 << 30;

/** Written last: without it there are no distributions here. */
const MANIFEST_FILE = 'distributions.json';
/** Float32, little-endian, one text behind the other. */
const VALUES_FILE = 'distributions.f32';

const count = z.number().int().nonnegative();
const manifestSchema = z.object({
  format: z.literal('weldline.distributions'),
  vocabulary: count,
  areLogProbabilities: z.boolean(),
  texts: z.array(
    z.object({
      index: count,
      tokens: z.array(z.number().int()),
      from: count,
      /** Of the first value, in bytes. */
      offset: count,
      bytes: count,
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
});

type Manifest = z.infer<typeof manifestSchema>;
type StoredText = Manifest['texts'][number];

/**
 * Keeps a model's distributions for other models to be compared with, up to a limit: from the first
 * text that does not fit, none is kept, or asked for. Replaces what was there.
 *
 * @param directory made if need be; holds nothing else
 * @throws WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed`; what `distributions`
 *   throws: then nothing there looks finished
 */
export async function writeDistributions(
  directory: string,
  distributions: AsyncIterable<Distributions>,
  bytesMax = STORE_BYTES_MAX,
): Promise<void> {
  const manifest: Manifest = {
    format: 'weldline.distributions',
    vocabulary: 0,
    areLogProbabilities: false,
    texts: [],
  };
  const path = join(directory, VALUES_FILE);
  try {
    await mkdir(directory, { recursive: true });
    await rm(join(directory, MANIFEST_FILE), { force: true });
    const file = await open(path, 'w');
    try {
      let offset = 0;
      for await (const { index, tokens, from, values, ...given } of distributions) {
        const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
        if (offset + bytes.length > bytesMax) break;
        await file.writeFile(bytes);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        const text = { index, tokens: [...tokens], from, offset, bytes: bytes.length, sha256 };
        manifest.texts.push(text);
        manifest.vocabulary = given.vocabulary;
        manifest.areLogProbabilities = given.areLogProbabilities;
        offset += bytes.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw systemErrorCode(error) === undefined ? error : toWriteError(error, path);
  }
  await writeFileDurably(join(directory, MANIFEST_FILE), `${JSON.stringify(manifest)}\n`);
}

/** Whether there are finished distributions in a directory. */
export async function hasDistributions(directory: string): Promise<boolean> {
  return (await readManifest(directory)) !== undefined;
}

/** Distributions as they were kept, each read and checked when it is asked for. */
export interface StoredDistributions {
  /** Indices of the texts that there are. */
  readonly indices: readonly number[];
  /** @throws WeldlineError `evaluate.distributions-damaged` */
  read(index: number): Promise<Distributions>;
  close(): Promise<void>;
}

/**
 * @throws WeldlineError `evaluate.distributions-damaged` where there are none, or not those that
 *   were written
 */
export async function openDistributions(directory: string): Promise<StoredDistributions> {
  const manifest = await readManifest(directory);
  const file = await open(join(directory, VALUES_FILE)).catch(() => undefined);
  if (manifest === undefined || file === undefined) {
    await file?.close();
    throw damaged(directory);
  }
  const texts = new Map(manifest.texts.map((text) => [text.index, text]));
  return {
    indices: [...texts.keys()],
    read: async (index) => {
      const text = texts.get(index);
      if (text === undefined) throw damaged(directory);
      const values = new Float32Array(text.bytes / 4);
      const bytes = new Uint8Array(values.buffer);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, text.offset);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      if (bytesRead !== bytes.length || sha256 !== text.sha256) throw damaged(directory);
      return toDistributions(manifest, text, values);
    },
    close: () => file.close(),
  };
}

function toDistributions(
  { vocabulary, areLogProbabilities }: Manifest,
  { index, tokens, from }: StoredText,
  values: Float32Array,
): Distributions {
  return { index, tokens: Int32Array.from(tokens), from, vocabulary, values, areLogProbabilities };
}

async function readManifest(directory: string): Promise<Manifest | undefined> {
  try {
    const text = await readFile(join(directory, MANIFEST_FILE), 'utf8');
    return manifestSchema.parse(JSON.parse(text));
  } catch {
    // Whatever is wrong with it: it is made again.
    return undefined;
  }
}

function damaged(directory: string): WeldlineError {
  return new WeldlineError(
    'evaluate.distributions-damaged',
    `The reference's distributions in ${directory} are not whole. Remove that directory, and ` +
      'resume: they are made again.',
  );
}
