import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from '../config/recipe.ts';
import type { ByteSource } from '../engine/byte-source.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { ResourceLimits } from '../engine/merge/resources.ts';
import type { SentFile, ShardSink } from '../engine/merge/shard-sink.ts';
import { isStreamedFile, type StreamedInputs } from '../engine/merge/streamed-input.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import type { Plan, PlanPreview } from '../engine/plan/plan.ts';
import {
  createS3ShardSink,
  type S3ShardSink,
  shardPartBytes,
} from '../publishers/s3/shard-sink.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { identityOf, type ModelAccess, openRemotely } from '../sources/model-input.ts';
import type { Dependencies } from './dependencies.ts';
import type { ResolvedInputs, StreamedMerge, StreamedOutput } from './types.ts';

/** Beside the files of a checkpoint whose shards were sent away: where they are. */
const SENT_FILE = 'sent.json';

/** Shards by name, as they were when the checkpoint was sealed. */
interface SentShards {
  readonly location: string;
  readonly files: Readonly<Record<string, SentFile>>;
}

/** What of a release's merge is streamed; undefined where nothing is. */
export function streamedMerge(
  { recipe }: { readonly recipe: Recipe },
  { base, artefact }: ResolvedInputs,
): StreamedMerge | undefined {
  const [output] = recipe.publish.flatMap((target): StreamedOutput[] => {
    if (!('s3' in target) || target.s3.stream !== true) return [];
    const { stream: _, ...bucket } = target.s3;
    return [{ ...bucket, artefact }];
  });
  const { fetch, ...model } = base;
  if (fetch === undefined && output === undefined) return undefined;
  return { ...(fetch && { base: model as typeof base }), ...(output && { output }) };
}

/** What streams take of a merge's memory. */
export function streamLimits(
  plan: Pick<PlanPreview, 'shards'>,
  streamed: StreamedMerge | undefined,
): Pick<ResourceLimits, 'streamsInput' | 'partBytes'> {
  const sizes = plan.shards.map(({ size }) => size);
  const partBytes = shardPartBytes(sizes.reduce((a, b) => Math.max(a, b), 0));
  return {
    streamsInput: streamed?.base !== undefined,
    ...(streamed?.output === undefined ? {} : { partBytes }),
  };
}

/** Streams as a merge uses them. */
export interface OpenStreams {
  readonly streamed?: StreamedInputs;
  readonly sink?: ShardSink;
}

/** Opens what is streamed for as long as `work` takes. */
export async function withStreams<Result>(
  { access, publishing }: Pick<Dependencies, 'access' | 'publishing'>,
  planDigest: string,
  { base, output }: StreamedMerge = {},
  work: (streams: OpenStreams) => Promise<Result>,
): Promise<Result> {
  const streamed = base && {
    base: { files: await openRemotely(access, base), pin: identityOf(base) },
  };
  const sink = output && (await openSink(output, planDigest, publishing));
  try {
    return await work({ ...(streamed && { streamed }), ...(sink && { sink }) });
  } finally {
    sink?.close();
  }
}

function openSink(
  { artefact, ...bucket }: StreamedOutput,
  planDigest: string,
  { s3 }: Dependencies['publishing'],
): Promise<S3ShardSink> {
  return createS3ShardSink({ target: { ...s3, ...bucket }, artefact, planDigest });
}

/** A plan's files that are on this disk and can be looked at there. */
export function filesOnDisk(
  { inputs }: Pick<Plan, 'inputs'>,
  streamed: StreamedInputs = {},
): Pick<Plan, 'inputs'> {
  return {
    inputs: inputs.map((input) =>
      streamed[input.id] === undefined
        ? input
        : { ...input, files: input.files.filter(({ path }) => !isStreamedFile(path)) },
    ),
  };
}

/**
 * Writes down where the shards of a checkpoint are, into the directory that the rest of it is sealed in.
 * @throws WeldlineError `publish.verify-failed` if one of them is not there
 */
export async function recordSentShards(
  directory: string,
  plan: Plan,
  sink: ShardSink,
  signal: AbortSignal,
): Promise<void> {
  const files: Record<string, SentFile> = {};
  for (const { file, size } of plan.shards) {
    const there = await sink.find(file, signal);
    if (there?.size !== size) throw notThere(sink, file);
    files[file] = { size, etag: there.etag };
  }
  const record: SentShards = { location: sink.name, files };
  await writeFileDurably(join(directory, SENT_FILE), `${JSON.stringify(record, null, 2)}\n`);
}

/** All files of a sealed checkpoint; its shards are read from where they were sent, if they were. */
export async function sealedFiles(
  directory: string,
  sink: ShardSink | undefined,
): Promise<ModelFiles> {
  const local = await openModelDirectory(directory);
  if (sink === undefined) return local;
  const sent = await readSentShards(directory);
  if (sent === undefined) throw withoutRecord(directory);
  const { files } = sent;
  const sizes = Object.entries(files).map(([path, { size }]) => [path, size] as const);
  return {
    name: sink.name,
    sizes: new Map([...local.sizes, ...sizes]),
    async open(path): Promise<ByteSource> {
      const there = files[path];
      return there === undefined ? local.open(path) : sink.read(path, there);
    },
  };
}

/**
 * Whether a sealed checkpoint is what it was.
 * @param files of its manifest
 */
export async function isIntact(
  access: ModelAccess,
  directory: string,
  files: readonly { readonly path: string; readonly sha256: string }[],
  sink: ShardSink | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const sent = sink === undefined ? {} : (await readSentShards(directory))?.files;
  if (sent === undefined) return false;
  const local = files.filter(({ path }) => sent[path] === undefined);
  if ((await access.digests.findChanged(directory, local, signal)) !== undefined) return false;
  for (const [file, { etag }] of Object.entries(sent)) {
    if ((await sink?.find(file, signal))?.etag !== etag) return false;
  }
  return true;
}

/** Undefined where there is no such record, or none that can be read. */
async function readSentShards(directory: string): Promise<SentShards | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, SENT_FILE), 'utf8')) as SentShards;
  } catch {
    return undefined;
  }
}

function withoutRecord(directory: string): WeldlineError {
  return new WeldlineError(
    'verify.inventory-mismatch',
    `${directory} does not say where its shards are: ${SENT_FILE} is not there or damaged. Remove the ` +
      'directory and release again.',
  );
}

function notThere({ name }: ShardSink, file: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${name}/${file} was sent and is not there any more. Look for whatever removes objects there, and ` +
      'release again.',
  );
}
