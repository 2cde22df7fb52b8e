import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Artefact, Published } from '../../publishers/publisher.ts';
import { resolveHubModel } from '../../sources/hub-model.ts';
import { RELEASE, signal } from '../conformance/publisher.ts';
import { type HubUnderTest, startHubUnderTest, WRITER } from '../harness/hub-target.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { runServicesPython } from '../services-python.ts';

const REPO = 'acme/support';
const CARD = `---
license: apache-2.0
library_name: transformers
base_model: acme/tiny
base_model_relation: merge
tags:
- weldline
---
# A model
`;

interface Seen {
  readonly tag: Readonly<Record<string, string>>;
  readonly alias: Readonly<Record<string, string>>;
  readonly commit: string;
  readonly private: boolean;
  readonly tags: Readonly<Record<string, string>>;
  readonly branches: Readonly<Record<string, string>>;
  readonly weights: { readonly sha256: string; readonly size: number };
  readonly card: Readonly<Record<string, unknown>>;
  readonly cardSays: string;
  readonly uploaded: {
    readonly files: Readonly<Record<string, string>>;
    readonly commits: readonly string[];
    readonly main: readonly string[];
    readonly listed: readonly string[];
  };
}

/** What a person uploads: large enough for several parts, small, and in a folder. */
const UPLOAD: Readonly<Record<string, string | Buffer>> = {
  'model.safetensors': testBytes(150_000),
  'config.json': '{"hidden_size": 64}',
  'templates/chat.jinja': '{{ messages }}',
  'notes.md': 'to be deleted',
};

let hub: HubUnderTest;
let directory: string;
let artefact: Artefact;
let published: Published;
let seen: Seen;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-hub-python-'));
  hub = await startHubUnderTest({ partBytes: 60_000, uploadsAtHub: false });
  artefact = await testArtefact(directory, { release: RELEASE }, { readme: CARD });
  const publisher = hub.publisher({ repo: REPO, private: true });
  const options = { signal: signal(), onProgress: () => undefined, publishedAt: [] };
  published = await publisher.publish(artefact, options);
  const alias = { alias: 'production', to: RELEASE, from: undefined, history: [] };
  await publisher.moveAlias(alias, signal());
  const upload = join(directory, 'upload');
  await mkdir(join(upload, 'templates'), { recursive: true });
  for (const [path, content] of Object.entries(UPLOAD))
    await writeFile(join(upload, path), content);
  const script = join(import.meta.dirname, 'hub_client.py');
  seen = (await runServicesPython(script, {
    ...{ endpoint: hub.server.endpoint, token: WRITER, home: join(directory, 'home') },
    ...{ repo: REPO, tag: RELEASE, alias: 'production', upload, uploadRepo: 'acme/by-python' },
  })) as Seen;
});

afterAll(async () => {
  await hub.close();
  await rm(directory, { recursive: true });
});

describe('the official Python client', () => {
  it('downloads what was published, by its tag and by its alias', async () => {
    for (const files of [seen.tag, seen.alias]) {
      const paths = artefact.files.map(({ path }) => path);
      expect(Object.keys(files).sort()).toEqual([...paths, '.gitattributes'].sort());
      for (const { path, source } of artefact.files) {
        const [mine, theirs] = await Promise.all([readFile(source), readFile(files[path]!)]);
        expect(theirs.equals(mine), path).toBe(true);
      }
    }
  });

  it('finds the commit behind both, in a private repository, and the digests of weights', () => {
    expect(published.pinned).toBe(`hf://${REPO}@${seen.commit}`);
    expect(seen.tags).toEqual({ [RELEASE]: seen.commit });
    expect(seen.branches['production']).toBe(seen.commit);
    expect(seen.private).toBe(true);
    const { sha256, size } = artefact.files.find(({ path }) => path === 'model.safetensors')!;
    expect(seen.weights).toEqual({ sha256, size });
  });

  it('reads the card', () => {
    expect(seen.card).toMatchObject({ base_model: 'acme/tiny', license: 'apache-2.0' });
    expect(seen.cardSays).toBe('# A model');
  });

  it('uploads what it and weldline download', async () => {
    const { files, commits, main, listed } = seen.uploaded;
    for (const [path, content] of Object.entries(UPLOAD)) {
      expect((await readFile(files[path]!)).equals(Buffer.from(content)), path).toBe(true);
    }
    expect(commits).toEqual([expect.stringContaining('notes.md'), 'From Python', 'initial commit']);
    const left = Object.keys(UPLOAD).filter((path) => path !== 'notes.md');
    expect(main).toEqual([...left, '.gitattributes'].sort());
    expect(listed).toEqual(['acme/by-python']);
    const connection = { endpoint: hub.server.endpoint, token: WRITER };
    const model = await resolveHubModel(connection, { repo: 'acme/by-python', revision: 'v1' });
    expect(model.files.map(({ path }) => path).sort()).toEqual(Object.keys(files).sort());
  });
});
