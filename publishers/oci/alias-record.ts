import { canonicalJson } from '../../engine/canonical-json.ts';
import { digestOfBytes, MANIFEST_TYPE, type Manifest } from '../../remote/oci/manifest.ts';
import type { AliasState } from '../publisher.ts';

/** What an alias's tag cannot say: its name apart from the part's, and where it was before. */
export interface AliasRecord {
  readonly alias: string;
  readonly part?: string;
  /** What it was moved to, and what it was before that: until the tag follows, that still holds. */
  readonly now: AliasState;
  readonly before?: AliasState;
}

const ARTIFACT_TYPE = 'application/vnd.weldline.alias.v1+json';
const RECORD_KEY = 'weldline.alias';
/** The empty configuration of the image specification. */
export const EMPTY_CONFIG = Buffer.from('{}');
const EMPTY = {
  mediaType: 'application/vnd.oci.empty.v1+json',
  digest: digestOfBytes(EMPTY_CONFIG),
  size: EMPTY_CONFIG.byteLength,
};

export function aliasManifest(record: AliasRecord): Uint8Array {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: ARTIFACT_TYPE,
    config: EMPTY,
    layers: [EMPTY],
    annotations: { [RECORD_KEY]: canonicalJson(record) },
  };
  return Buffer.from(canonicalJson(manifest));
}

/** Undefined for what is no record. */
export function aliasRecordOf(manifest: Manifest): AliasRecord | undefined {
  let value: Partial<AliasRecord> | null;
  try {
    value = JSON.parse(manifest.annotations?.[RECORD_KEY] ?? 'null');
  } catch {
    return undefined;
  }
  if (typeof value?.alias !== 'string' || !['string', 'undefined'].includes(typeof value.part)) {
    return undefined;
  }
  const isSound = isState(value.now) && (value.before === undefined || isState(value.before));
  return isSound ? (value as AliasRecord) : undefined;
}

function isState(value: unknown): value is AliasState {
  if (typeof value !== 'object' || value === null) return false;
  const { release, history } = value as Partial<AliasState>;
  const names = Array.isArray(history) ? [release, ...history] : [undefined];
  return names.every((name) => typeof name === 'string');
}

/**
 * Where an alias is: where its tag is, with the history that belongs to it. The record is written
 * before the tag, so it may be ahead of it; and people move tags by hand.
 */
export function stateOf(release: string, record: AliasRecord | undefined): AliasState {
  if (record?.before?.release === release && record.now.release !== release) return record.before;
  return { release, history: record?.now.history ?? [] };
}

export function isSameState(one: AliasState | undefined, other: AliasState | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.release === other.release && one.history.join('\n') === other.history.join('\n');
}
