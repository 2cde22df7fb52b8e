import type { ByteSource } from '../engine/byte-source.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import { INDEX_FILE } from '../engine/safetensors/weight-index.ts';
import { PATIENCE, type Patience } from '../remote/patience.ts';
import { connectionLimit } from './connection-limit.ts';
import { openHttpFile } from './http-file.ts';
import { type Probed, probeHttpFile } from './http-probe.ts';
import { isPlainPath } from './hub-path.ts';
import type { RemoteFile, RemoteModel, RemoteSource } from './remote-source.ts';
import { KNOWN_FILES, LISTING_FILES } from './well-known-files.ts';

/** Asking for a name that is not there costs a round trip; there are some forty. */
const PROBES_AT_ONCE = 8;

/** An index of a 400B model has 4 MB; what is much larger lists no files. */
const LISTING_BYTES_MAX = 64 * 1024 * 1024;

/** The largest models have some hundred shards. */
const FILES_MAX = 20_000;

/**
 * Models under a plain URL: a directory of any web server that answers byte ranges. Such servers list
 * nothing, so the names that models have are tried, and what an index or a release names. No
 * credentials are sent.
 *
 * A file is pinned by its ETag, else by its time of change, else by its size only.
 */
export function httpSource(patience: Patience = PATIENCE): RemoteSource {
  return {
    kind: 'http',
    resolve: (uri, signal = new AbortController().signal) => resolve(uri, patience, signal),
    open: (model, file) => openHttpFile(model.uri, file, patience),
  };
}

async function resolve(uri: string, patience: Patience, signal: AbortSignal): Promise<RemoteModel> {
  const limit = connectionLimit(PROBES_AT_ONCE);
  const probeAll = (paths: readonly string[]) =>
    Promise.all(paths.map((path) => limit(() => probeHttpFile({ uri, path, patience, signal }))));
  const known = await probeAll(KNOWN_FILES);
  const found = known.flatMap(({ file }) => file ?? []);
  if (found.length === 0) throw nothingThere(uri, known);
  const named = await namesIn(uri, found, patience);
  const missing = named.filter((name) => !KNOWN_FILES.includes(name));
  found.push(...(await probeAll(missing)).flatMap(({ file }) => file ?? []));
  const files = found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  // With where it is: versions of web servers are often times, and models of one kind are of one size.
  const pin = digestOf([uri, files.map(({ path, size, version }) => [path, size, version])]);
  return { kind: 'http', uri, pin, files };
}

/** Files that an index of weights, a manifest or a release names. */
async function namesIn(
  uri: string,
  found: readonly RemoteFile[],
  patience: Patience,
): Promise<string[]> {
  const names = new Set<string>();
  for (const file of found) {
    if (!LISTING_FILES.includes(file.path) || file.size > LISTING_BYTES_MAX) continue;
    const listing = await readJson(openHttpFile(uri, file, patience));
    for (const name of namedFiles(file.path, listing)) {
      if (isPlainPath(name)) names.add(name);
      if (names.size > FILES_MAX) throw tooMany(uri);
    }
  }
  return [...names];
}

/** What is wrong with a listing is told by who reads it for good. */
async function readJson(source: ByteSource): Promise<unknown> {
  try {
    const bytes = await source.read(0, source.size);
    return JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    if (error instanceof WeldlineError) throw error;
    return undefined;
  } finally {
    await source.close();
  }
}

function namedFiles(path: string, listing: unknown): string[] {
  if (typeof listing !== 'object' || listing === null) return [];
  const { weight_map: weights, files, contents } = listing as Record<string, unknown>;
  const named: unknown[] =
    path === INDEX_FILE
      ? Object.values(weights ?? {})
      : [files, contents].flatMap((list) =>
          Array.isArray(list)
            ? list.map((entry) => (entry as { path?: unknown } | null)?.path)
            : [],
        );
  return named.filter((name) => typeof name === 'string');
}

function nothingThere(uri: string, known: readonly Probed[]): WeldlineError {
  const isForbidden = known.some(({ status }) => status === 403);
  return isForbidden
    ? new WeldlineError(
        'source.unauthorized',
        `${uri} refuses what was asked of it (403), and weldline sends no credentials over HTTP. ` +
          'Make the model readable, or name it by s3://, oci:// or hf://.',
      )
    : new WeldlineError(
        'source.not-found',
        `${uri} has no file that a model has: neither config.json nor adapter_config.json nor ` +
          'weights. Name the directory, under which its files are.',
      );
}

function tooMany(uri: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${uri} names more than ${FILES_MAX} files: it is not one model.`,
  );
}
