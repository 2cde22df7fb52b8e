import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256Of } from '../engine/canonical-json.ts';
import { toWriteError } from '../engine/disk-errors.ts';
import {
  digestFile,
  digestHandle,
  syncDirectory,
  writeFileDurably,
} from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import type { ConversionManifest, ConversionStep } from './conversion-step.ts';
import type { Conversion } from './convert-options.ts';

/** Written last: a directory without it is not a finished conversion. */
export const CONVERSION_FILE = 'conversion.json';

/** What decides the files of a conversion, and what people want to know of it. */
export interface ConversionFacts {
  readonly id: string;
  readonly kind: ConversionStep['kind'];
  /** SHA-256 over all that decides the files: source, settings, tools. */
  readonly key: string;
  readonly tools: ConversionManifest['tools'];
  readonly settings: ConversionManifest['settings'];
}

/** What making and checking the files brought to light. */
export type ConversionFindings = Pick<
  ConversionManifest,
  'checks' | 'warnings' | 'bitsPerWeight' | 'layerErrors'
>;

/** As those of a merge, which go along; no directory. */
const FILE_NAME = /^(?!\.{1,2}$)[A-Za-z0-9_.-][A-Za-z0-9_. -]*$/;

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const manifestSchema = z.object({
  format: z.literal('weldline.conversion'),
  id: z.string(),
  kind: z.enum(['gguf', 'awq', 'gptq', 'gguf-adapter']),
  key: digest,
  tools: z.record(z.string(), z.string()),
  settings: z.record(
    z.string(),
    z.union([z.string(), z.number(), z.boolean(), z.array(z.string())]),
  ),
  bitsPerWeight: z.number().optional(),
  checks: z.array(z.string()),
  warnings: z.array(z.string()),
  layerErrors: z.record(z.string(), z.number()).optional(),
  files: z.array(
    z.object({
      path: z.string().regex(FILE_NAME),
      size: z.number().int().nonnegative(),
      sha256: digest,
    }),
  ),
});

/**
 * Gives the finished conversion with this key, and makes it first if there is none. A conversion
 * grows in a directory of its own beside its place and gets its name whole, with its manifest: an
 * attempt that ends early leaves nothing that looks done, and two attempts at once do each other no
 * harm.
 *
 * @param store where conversions are kept; made if need be
 * @param make makes the files side by side in an empty directory and checks them
 * @throws what `make` throws; WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed`
 */
export async function makeConversion(
  store: string,
  facts: ConversionFacts,
  make: (partialDirectory: string) => Promise<ConversionFindings>,
  signal?: AbortSignal,
): Promise<Conversion> {
  const place = join(store, `${facts.id}-${facts.key.slice(0, 16)}`);
  const finished = await readConversion(place, { key: facts.key, signal });
  if (finished !== undefined) return finished;

  const partial = `${place}.${HOST}-${process.pid}-${attempts++}${PARTIAL_ENDING}`;
  underWay.add(partial);
  try {
    await mkdir(store, { recursive: true });
    await removeAbandoned(store);
    // Not finished, or changed since: what is there is worth nothing.
    await rm(place, { recursive: true, force: true });
    await mkdir(partial);
    const findings = await make(partial);
    const files = await describeFiles(partial, signal);
    const manifest = { format: 'weldline.conversion' as const, ...facts, ...findings, files };
    // What could not be read back would be made again and again.
    manifestSchema.parse(manifest);
    await writeFileDurably(join(partial, CONVERSION_FILE), formatConversion(manifest));
    await renameInto(place, partial);
    await syncDirectory(store);
  } catch (error) {
    signal?.throwIfAborted();
    throw systemErrorCode(error) === undefined ? error : toWriteError(error, partial);
  } finally {
    // What cannot be removed now is removed as abandoned later.
    await rm(partial, { recursive: true, force: true }).catch(() => undefined);
    underWay.delete(partial);
  }
  const made = await readConversionManifest(place);
  // Only another attempt at the same files can have taken its place meanwhile.
  if (made?.manifest.key === facts.key) return made;
  return await makeConversion(store, facts, make, signal);
}

/**
 * A finished conversion whose files are all there with the bytes that its manifest says.
 *
 * @param expected.key of the conversion that it must be
 * @returns undefined for anything else
 */
export async function readConversion(
  directory: string,
  { key, signal }: { readonly key?: string; readonly signal?: AbortSignal | undefined } = {},
): Promise<Conversion | undefined> {
  const found = await readConversionManifest(directory);
  if (found === undefined || (key !== undefined && found.manifest.key !== key)) return undefined;
  for (const { path, size, sha256 } of found.manifest.files) {
    const file = join(directory, path);
    const isSized = await stat(file).then(
      (stats) => stats.size === size,
      () => false,
    );
    if (!isSized || (await digestFile(file, { signal })).sha256 !== sha256) return undefined;
  }
  return found;
}

const PARTIAL_ENDING = '.partial';
const PARTIAL_NAME = /\.([0-9a-f]{8})-(\d+)-\d+\.partial$/;
/** Machines that share a disk must not take each other's processes for dead. */
const HOST = sha256Of(hostname()).slice(0, 8);
const underWay = new Set<string>();
let attempts = 0;

/**
 * Removes what processes of this machine left behind that were killed. Those that run keep theirs.
 * @returns the paths of it
 */
export async function removeAbandoned(store: string): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const name of await readdir(store).catch(absentAsNone)) {
    const [, host, digits = '0'] = PARTIAL_NAME.exec(name) ?? [];
    if (host !== HOST) continue;
    const pid = Number(digits);
    const path = join(store, name);
    // After a restart of a container this process may have the number of the one that was killed.
    if (pid === 0 || (pid === process.pid ? underWay.has(path) : isRunning(pid))) continue;
    await rm(path, { recursive: true, force: true });
    removed.push(path);
  }
  return removed;
}

function absentAsNone(error: unknown): string[] {
  if (systemErrorCode(error) === 'ENOENT') return [];
  throw error;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemErrorCode(error) !== 'ESRCH';
  }
}

/** Renames into place, unless another attempt was faster, whose files may be in use by now. */
async function renameInto(place: string, partial: string): Promise<void> {
  try {
    await rename(partial, place);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes(systemErrorCode(error) ?? '')) throw error;
  }
}

/** Synced, since other programs wrote them. */
async function describeFiles(
  directory: string,
  signal: AbortSignal | undefined,
): Promise<ConversionManifest['files']> {
  const names = await readdir(directory);
  const files: ConversionManifest['files'][number][] = [];
  for (const path of names.sort()) {
    const handle = await open(join(directory, path), 'r');
    try {
      await handle.sync();
      files.push({ path, ...(await digestHandle(handle, { signal })) });
    } finally {
      await handle.close();
    }
  }
  return files;
}

/** What a finished conversion says of itself; its files are not looked at. */
export async function readConversionManifest(directory: string): Promise<Conversion | undefined> {
  try {
    const text = await readFile(join(directory, CONVERSION_FILE), 'utf8');
    const manifest = manifestSchema.parse(JSON.parse(text)) as ConversionManifest;
    return { directory, manifest, manifestDigest: sha256Of(text) };
  } catch {
    // Absent, cut off or another program's: not a finished conversion, whatever it is.
    return undefined;
  }
}

function formatConversion(manifest: ConversionManifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}
