import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { PublishTarget } from '../../config/publish-schema.ts';
import {
  type Artefact,
  type ArtefactDescription,
  type ArtefactId,
  artefactNameOf,
  type Published,
  type Publisher,
  type PublishOptions,
} from '../../publishers/publisher.ts';
import type { FaultyProxy } from '../harness/faulty-proxy.ts';
import { type TestArtefactOptions, testArtefact } from '../harness/test-artefact.ts';

/** One target, empty for each test; a server behind it may be shared by all of them. */
export interface PublisherUnderTest {
  /** With little patience: see {@link TEST_PATIENCE}. */
  readonly publisher: Publisher;
  /**
   * Files that a foreign client finds under an artefact's version, by path; undefined where it finds
   * no version. Not asked through the proxy.
   */
  read(id: ArtefactId): Promise<ReadonlyMap<string, Buffer> | undefined>;
  /** The same under an alias. */
  readAlias?(alias: string, part?: string): Promise<ReadonlyMap<string, Buffer> | undefined>;
  /** Names of all artefacts at the target, and of whatever else lies there: leftovers, uploads. */
  everything(): Promise<readonly string[]>;
  /** Between the publisher and its server. */
  readonly proxy?: FaultyProxy;
  /** How a process of its own reaches the same target (by the server itself or the proxy). */
  readonly child?: {
    readonly target: PublishTarget;
    readonly env: Readonly<Record<string, string>>;
  };
  /** What must not be seen in any error. */
  readonly secrets?: readonly string[];
  /** For targets that only point at others. */
  publishedAt?(artefact: Artefact): readonly Published[];
  cleanUp(): Promise<void>;
}

/** In what a target differs from others; the least is assumed to differ. */
export interface PublisherTraits {
  /** Of the artefacts that it takes; `merged`, and `gguf` as another part. */
  readonly only?: 'gguf';
  /** Points at files that other targets hold: nothing about files is tested. */
  readonly holds?: 'references';
  /** Which files a foreign client sees; all. */
  readonly shows?: (path: string) => boolean;
  /** Has `prune`. */
  readonly prunes?: boolean;
  /** Two who move an alias at once may both be told that they did: the target has no compare-and-swap. */
  readonly aliasesRace?: boolean;
  /** Speaks to a server through a proxy: faults are tested. */
  readonly hasServer?: boolean;
  /** How many kinds of a publication's changes each fault hits, the last always; all. For slow servers. */
  readonly changesHit?: number;
}

/** What tests of publishers hand them as `Patience`. */
export const TEST_PATIENCE = {
  attemptsMax: 4,
  backoffMs: 5,
  stallTimeoutMs: 1500,
  retryAfterMaxMs: 2_000,
} as const;

export const RELEASE = 'merged-tiny-1.0.0-adapter-tone-3';

/** What the tests of a publisher share: its target and short ways to it. */
export class Stage {
  readonly traits: PublisherTraits;
  under!: PublisherUnderTest;
  directory!: string;

  constructor(traits: PublisherTraits) {
    this.traits = traits;
  }

  get publisher(): Publisher {
    return this.under.publisher;
  }

  /** An id of what the target takes. */
  id(release = RELEASE): ArtefactId {
    return this.traits.only === undefined ? { release } : { release, part: 'gguf-q4_k_m' };
  }

  get kind(): ArtefactDescription['kind'] {
    return this.traits.only ?? 'merged';
  }

  artefact(id = this.id(), options: TestArtefactOptions = {}): Promise<Artefact> {
    return testArtefact(this.directory, id, options);
  }

  publish(artefact: Artefact, options: Partial<PublishOptions> = {}): Promise<Published> {
    return this.publisher.publish(artefact, {
      signal: signal(),
      onProgress: () => undefined,
      publishedAt: this.under.publishedAt?.(artefact) ?? [],
      ...options,
    });
  }

  /** Exactly its files are there, with their bytes, and weldline finds it too. */
  async expectPublished(artefact: Artefact, isPruned = false): Promise<void> {
    const seen = await this.under.read(artefact);
    await this.expectFiles(artefact, seen);
    const found = await this.publisher.find(idOf(artefact), signal());
    const { manifestDigest, planDigest } = artefact;
    expect(found).toMatchObject({ ...idOf(artefact), manifestDigest, planDigest, isPruned });
    // By which releases of one recipe are told from those of others before their weights go.
    if (this.traits.prunes === true) expect(found?.name).toBe(artefact.description.name);
    expect(Date.parse(found?.createdAt ?? '')).toBe(Date.parse(artefact.description.createdAt));
  }

  async expectFiles(
    artefact: Artefact,
    seen: ReadonlyMap<string, Buffer> | undefined,
  ): Promise<void> {
    const { shows = () => this.traits.holds !== 'references' } = this.traits;
    const shown = artefact.files.filter(({ path }) => shows(path));
    expect([...(seen?.keys() ?? ['nothing'])].sort()).toEqual(shown.map((f) => f.path).sort());
    for (const { path, source } of shown) {
      expect(seen?.get(path)?.equals(await readFile(source)), path).toBe(true);
    }
  }

  /** Nobody sees the version: neither a foreign client nor weldline. */
  async expectInvisible(id: ArtefactId): Promise<void> {
    expect(await this.under.read(id), artefactNameOf(id)).toBeUndefined();
    expect(await this.publisher.find(idOf(id), signal()), artefactNameOf(id)).toBeUndefined();
    const listed = await this.publisher.list(signal());
    expect(listed.map(artefactNameOf)).not.toContain(artefactNameOf(id));
  }

  /** The error of something that must fail with one for people, without secrets and stack. */
  async errorOf(failing: Promise<unknown>): Promise<{ code: string; message: string }> {
    const error = await failing.then(
      (value) => Promise.reject(new Error(`expected an error, not ${JSON.stringify(value)}`)),
      (thrown: unknown) => thrown as { name: string; code: string; message: string },
    );
    expect(error, String(error)).toMatchObject({ name: 'WeldlineError' });
    expect(error.code, error.message).not.toBe('internal.bug');
    expect(error.message).not.toMatch(/\n\s+at |undefined|\[object/);
    for (const secret of this.under.secrets ?? []) expect(everyText(error)).not.toContain(secret);
    return error;
  }

  /** Publishes in a process that ends at a file, or by itself. */
  async publishInChild(artefact: Artefact, file?: string): Promise<Published | undefined> {
    const { child } = this.under;
    if (child === undefined) throw new Error('the test of this publisher has no child');
    const script = fileURLToPath(new URL('../harness/publish-child.ts', import.meta.url));
    const args = [JSON.stringify(child.target), JSON.stringify(artefact), ...(file ? [file] : [])];
    const env = { ...process.env, ...child.env };
    const running = spawn(process.execPath, [script, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pieces: Buffer[] = [];
    running.stdout.on('data', (piece: Buffer) => pieces.push(piece));
    const end = await new Promise((resolve) =>
      running.once('close', (code, by) => resolve(by ?? code)),
    );
    expect(end).toBe(file === undefined ? 0 : 'SIGKILL');
    return file === undefined
      ? (JSON.parse(String(Buffer.concat(pieces))) as Published)
      : undefined;
  }
}

export function signal(): AbortSignal {
  return new AbortController().signal;
}

export function idOf({ release, part }: ArtefactId): ArtefactId {
  return part === undefined ? { release } : { release, part };
}

/** Message, stack and details of an error and of all its causes. */
function everyText(error: unknown): string {
  if (!(error instanceof Error)) return JSON.stringify(error) ?? '';
  const details = JSON.stringify((error as { details?: unknown }).details ?? {});
  return `${error.message} ${error.stack} ${details} ${everyText(error.cause)}`;
}
