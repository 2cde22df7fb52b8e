import type { ArtefactDescription, ArtefactId } from './publisher.ts';

/** What publishers need of `release.json`: which artefact it is, and of which release. */
export interface ReleaseRecord extends ArtefactId {
  readonly manifestDigest: string;
  readonly planDigest: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  readonly kind?: ArtefactDescription['kind'];
  /** Of the recipe. */
  readonly name?: string;
}

export { PRUNED_FILE } from '../engine/manifest.ts';

/** Far above any: a list of files and what was measured. */
export const RELEASE_RECORD_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Reads `release.json`; undefined for what is none. Members:
 * `{format: "weldline.release", name, release, part?, kind, manifestDigest, plan, run: {startedAt}}`,
 * where releases before 0.2 have the artefact's name (`artefact`) in place of `release` and `part`.
 */
export function parseReleaseRecord(text: string): ReleaseRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { artefact, release = artefact, part, ...others } = value as Members;
  const { kind, name, manifestDigest, plan, run } = others;
  const createdAt = (run as Members | undefined)?.['startedAt'];
  if (![release, manifestDigest, plan, createdAt].every(isText)) return undefined;
  if (Number.isNaN(Date.parse(createdAt as string))) return undefined;
  return {
    release: release as string,
    ...(isText(part) && { part }),
    manifestDigest: manifestDigest as string,
    planDigest: plan as string,
    createdAt: createdAt as string,
    ...(isText(kind) && { kind: kind as ArtefactDescription['kind'] }),
    ...(isText(name) && { name }),
  };
}

type Members = Readonly<Record<string, unknown>>;

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

/**
 * Whether a file is weights, which pruning removes: they can be made again from what stays, the
 * archive of adapters and the documents.
 */
export function isPrunable(path: string, kind: ArtefactDescription['kind'] | undefined): boolean {
  if (kind === 'gguf-adapter' || path.startsWith('adapters/')) return false;
  return path.endsWith('.safetensors') || path.endsWith('.gguf');
}
