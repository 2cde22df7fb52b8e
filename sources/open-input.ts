/** Models as inputs of a plan, with the digests of their files. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { ByteSource } from '../engine/byte-source.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import type { Plan, PlanPreview } from '../engine/plan/plan.ts';
import type { MergeInput } from '../engine/plan/plan-merge.ts';
import { openModelDirectory } from './model-directory.ts';
import { type LocatedModel, type ModelAccess, openRemotely } from './model-input.ts';
import { NO_VERSION } from './remote-source.ts';

/** Read in pieces where a whole file passes through. */
const PIECE_BYTES = 4 * 1024 * 1024;

export interface OpenInputOptions {
  /**
   * Where it was fetched to; without it, files are read over the network. Those without a known
   * digest are read once for it, and nothing of them is stored.
   */
  readonly directory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes that are read for digests. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

export interface OpenedInput extends MergeInput {
  /** The digest of one of its files, if none of it need be read for that. */
  known(path: string): Promise<string | undefined>;
}

/** A model as an input of a plan. Digests that its place pins are not computed again. */
export async function openInput(
  access: ModelAccess,
  model: LocatedModel,
  { directory, signal, onBytes }: OpenInputOptions = {},
): Promise<OpenedInput> {
  const pinned = pinnedDigests(model);
  const local = directory ?? (model.kind === 'directory' ? model.path : undefined);
  if (local === undefined) {
    const files = await openRemotely(access, model);
    const versions = fileVersions(model);
    const known = async (path: string) => {
      const version = versions.get(path);
      return pinned.get(path) ?? (version && access.digests.knownVersion(version));
    };
    return {
      files,
      known,
      async digest(path) {
        const found = await known(path);
        if (found !== undefined) return found;
        const sha256 = await digestOfFile(files, path, { signal, onBytes });
        const version = versions.get(path);
        if (version !== undefined) await access.digests.rememberVersion(version, sha256);
        return sha256;
      },
    };
  }
  const files = await openModelDirectory(local);
  const { digests } = access;
  for (const [path, sha256] of pinned) {
    if (files.sizes.has(path)) await digests.remember(join(local, path), sha256);
  }
  return {
    files,
    known: (path) => digests.known(join(local, path)),
    digest: (path) => digests.digest(join(local, path), { signal, onBytes }),
  };
}

/** SHA-256 by path, as far as the place of a model says. */
function pinnedDigests(model: LocatedModel): ReadonlyMap<string, string> {
  if (model.kind === 'directory') return new Map();
  const { files } = model.kind === 'hub' ? model : model.model;
  const prefix = model.kind === 'hub' && model.folder !== '' ? `${model.folder}/` : '';
  return new Map(
    files.flatMap(({ path, sha256 }) =>
      sha256 === undefined ? [] : [[path.slice(prefix.length), sha256] as const],
    ),
  );
}

/** What pins the content of each file of a remote model, for digests to be remembered by. */
function fileVersions(model: LocatedModel): ReadonlyMap<string, string> {
  if (model.kind !== 'remote') return new Map();
  const { uri, files } = model.model;
  return new Map(
    files
      // Of a file whose server names no version, nothing can be remembered.
      .filter(({ version }) => version !== NO_VERSION)
      .map(({ path, size, version }) => [path, [uri, path, size, version].join('|')]),
  );
}

/** Bytes that must be read for the digests that a preview lacks. */
export async function unreadBytes(
  preview: PlanPreview,
  inputs: Readonly<Record<string, OpenedInput>>,
): Promise<number> {
  let bytes = 0;
  for (const { id, files } of preview.inputs) {
    for (const { path, size } of files) {
      if ((await inputs[id]?.known(path)) === undefined) bytes += size;
    }
  }
  return bytes;
}

/**
 * Checks that the files of a plan's inputs are still those it was made of. Only files that were
 * touched since are read again.
 * @throws WeldlineError `merge.input-changed`
 */
export async function checkUnchanged(
  access: ModelAccess,
  plan: Pick<Plan, 'inputs'>,
  roots: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  for (const { id, files } of plan.inputs) {
    for (const { path, sha256 } of files) {
      const place = join(roots[id] ?? '', path);
      if ((await access.digests.digest(place, { signal })) === sha256) continue;
      throw new WeldlineError(
        'merge.input-changed',
        `${place} is not the file that the merge was planned with. Restore it, or run again to ` +
          'plan with the new file.',
      );
    }
  }
}

/**
 * SHA-256 of a file, read where it is, piece by piece; nothing is stored.
 * @throws WeldlineError what reading throws; the abort reason
 */
export async function digestOfFile(
  files: ModelFiles,
  path: string,
  options: Pick<OpenInputOptions, 'signal' | 'onBytes'>,
): Promise<string> {
  const source = await files.open(path);
  const onAbort = () => void source.close();
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await digestOfSource(source, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
    await source.close();
  }
}

async function digestOfSource(
  source: ByteSource,
  { signal, onBytes }: Pick<OpenInputOptions, 'signal' | 'onBytes'>,
): Promise<string> {
  const hash = createHash('sha256');
  const read = (offset: number): Promise<Uint8Array> => {
    const piece = source.read(offset, Math.min(PIECE_BYTES, source.size - offset));
    // It fails where it is awaited, which may be never.
    piece.catch(() => undefined);
    return piece;
  };
  // The next piece is on its way while one is hashed: over a network each is a round trip.
  let next = source.size > 0 ? read(0) : undefined;
  for (let offset = PIECE_BYTES; next !== undefined; offset += PIECE_BYTES) {
    signal?.throwIfAborted();
    const piece: Uint8Array = await next;
    next = offset < source.size ? read(offset) : undefined;
    hash.update(piece);
    onBytes?.(piece.byteLength);
  }
  return hash.digest('hex');
}
