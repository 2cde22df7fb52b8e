import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commit } from '@huggingface/hub';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { promote } from '../../publishers/alias-moves.ts';
import type { HubPublisher } from '../../publishers/hub/hub-publisher.ts';
import type {
  Artefact,
  ArtefactFile,
  Published,
  PublishProgress,
} from '../../publishers/publisher.ts';
import { RELEASE, signal, TEST_PATIENCE } from '../conformance/publisher.ts';
import { type HubUnderTest, READER, startHubUnderTest, WRITER } from '../harness/hub-target.ts';
import { bytesOf, testArtefact } from '../harness/test-artefact.ts';

/** Objects above this go up in parts. */
const PART_BYTES = 60_000;
const QUOTA_BYTES = 12_000_000;
const NEXT = `${RELEASE}.1`;

let hub: HubUnderTest;
let directory: string;
let repo: string;
let publisher: HubPublisher;
let repositories = 0;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-publisher-'));
  hub = await startHubUnderTest({
    partBytes: PART_BYTES,
    pageSize: 3,
    objectBytesMax: QUOTA_BYTES,
  });
});
afterAll(async () => {
  await hub.close();
  await rm(directory, { recursive: true });
});
beforeEach(() => {
  repo = `acme/model${repositories++}x`;
  publisher = hub.publisher({ repo });
  hub.proxy.clear();
});

const artefactOf = (release = RELEASE): Promise<Artefact> => testArtefact(directory, { release });

function publish(
  artefact: Artefact,
  to = publisher,
  onProgress: (progress: PublishProgress) => void = () => undefined,
): Promise<Published> {
  return to.publish(artefact, { signal: signal(), onProgress, publishedAt: [] });
}

const fileOf = ({ files }: Artefact, path: string): ArtefactFile =>
  files.find((file) => file.path === path)!;

/** Lists its files in `release.json`, as releases do. */
async function listed(
  artefact: Artefact,
  more: Readonly<Record<string, string>>,
): Promise<Artefact> {
  const extra: ArtefactFile[] = [];
  for (const [path, text] of Object.entries(more)) extra.push(await made(path, text));
  const others = artefact.files.slice(0, -1);
  const last = artefact.files.at(-1)!;
  const release = JSON.parse(await readFile(last.source, 'utf8')) as object;
  const files = [...others, ...extra];
  const text = JSON.stringify({ ...release, files: files.map(({ path }) => ({ path })) });
  return { ...artefact, files: [...files, await made('release.json', text)] };
}

async function made(path: string, content: string | Buffer): Promise<ArtefactFile> {
  const source = join(directory, `file-${randomBytes(6).toString('hex')}`);
  await writeFile(source, content);
  const bytes = Buffer.from(content);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { path, size: bytes.length, sha256, source };
}

/** What a person commits by the website. */
async function commitByHand(path: string, text: string): Promise<void> {
  const operations = [{ operation: 'addOrUpdate' as const, path, content: new Blob([text]) }];
  const access = { accessToken: WRITER, hubUrl: hub.server.endpoint };
  await commit({ repo, title: `Add ${path}`, operations, ...access });
}

const commitsTo = (branch: string) =>
  hub.proxy.requests.filter(({ path }) => path.endsWith(`/commit/${branch}`));
const uploads = () => hub.proxy.uploadedBytes(/PUT .upload/);

describe('a release on the hub', () => {
  it('goes up in parts where the hub asks for it, as one commit and a tag on it', async () => {
    const artefact = await artefactOf();
    const { location, pinned, bytesSent } = await publish(artefact);
    const parts = hub.proxy.requests.filter(({ path }) => path.includes('part='));
    const weights = fileOf(artefact, 'model.safetensors');
    expect(parts).toHaveLength(Math.ceil(weights.size / PART_BYTES));
    expect(bytesSent).toBe(bytesOf(artefact.files));
    expect(commitsTo('main')).toHaveLength(1);
    expect(location).toBe(`hf://${repo}@${RELEASE}`);
    expect(pinned).toBe(`hf://${repo}@${hub.server.commitOf(repo, RELEASE)}`);
  });

  it('takes the files of the release before away from main, and leaves those of people', async () => {
    await publish(await listed(await artefactOf(), { 'old/merges.txt': 'a b', 'model.sig': '{}' }));
    await commitByHand('NOTES.md', 'ours');
    const next = await listed(await artefactOf(NEXT), { 'vocab.txt': 'a' });
    await publish(next);
    const paths = [...next.files.map(({ path }) => path), 'NOTES.md'].sort();
    expect([...(await hub.filesAt(repo, 'main'))!.keys()].sort()).toEqual(paths);
    expect([...(await hub.filesAt(repo, RELEASE))!.keys()]).toContain('old/merges.txt');
    expect(String((await hub.filesAt(repo, NEXT))!.get('NOTES.md'))).toBe('ours');
  });

  it('sends only what changed', async () => {
    const first = await artefactOf();
    await publish(first);
    const next = await artefactOf(NEXT);
    const weights = fileOf(first, 'model.safetensors');
    const files = next.files.map((file) => (file.path === weights.path ? weights : file));
    hub.proxy.clear();
    const { bytesSent } = await publish({ ...next, files });
    expect(uploads()).toBe(0);
    const changed = ['weldline.json', 'release.json'].map((path) => fileOf(next, path));
    expect(bytesSent).toBe(bytesOf(changed));
  });

  it('finds its commit again, below those that others made since', async () => {
    const artefact = await artefactOf();
    hub.proxy.fail({ kind: 'status', status: 403, path: /\/tag\// });
    await expect(publish(artefact)).rejects.toMatchObject({ code: 'publish.unauthorized' });
    const committed = hub.server.commitOf(repo, 'main');
    await commitByHand('NOTES.md', 'ours');
    hub.proxy.clear();
    const { pinned, existed, bytesSent } = await publish(artefact);
    expect({ pinned, existed, bytesSent }).toEqual({
      pinned: `hf://${repo}@${committed}`,
      existed: false,
      bytesSent: 0,
    });
    expect(commitsTo('main')).toEqual([]);
    expect(String((await hub.filesAt(repo, 'main'))!.get('NOTES.md'))).toBe('ours');
  });

  it('commits on top of what somebody committed meanwhile', async () => {
    await publish(await artefactOf());
    const next = await artefactOf(NEXT);
    hub.proxy.clear();
    // Until the weights are there somebody else has committed on the parent that was found.
    const answer = hub.proxy.hold({ path: /complete_multipart/ });
    let meanwhile: Promise<void> | undefined;
    const patient = hub.publisher({ repo }, WRITER, { ...TEST_PATIENCE, stallTimeoutMs: 15_000 });
    await patient.publish(next, {
      signal: signal(),
      publishedAt: [],
      onProgress: ({ item, bytesDone }) => {
        if (item !== 'model.safetensors' || bytesDone === 0) return;
        meanwhile ??= commitByHand('NOTES.md', 'ours').finally(answer);
      },
    });
    await meanwhile;
    const files = await hub.filesAt(repo, NEXT);
    expect(String(files?.get('NOTES.md'))).toBe('ours');
    expect(commitsTo('main').map(({ status }) => status)).toEqual([412, 200]);
    // The weights went up once.
    expect(uploads()).toBe(fileOf(next, 'model.safetensors').size);
  });

  it('is not made visible if something else arrived', async () => {
    const artefact = await artefactOf();
    const tree = [{ type: 'file', path: 'config.json', size: 38, oid: 'f'.repeat(40) }];
    const headers = { 'content-type': 'application/json' };
    const lie = { kind: 'status', status: 200, headers, body: JSON.stringify(tree) } as const;
    hub.proxy.fail({ ...lie, path: /\/tree\//, skip: 1 });
    const failed = publish(artefact);
    await expect(failed).rejects.toMatchObject({ code: 'publish.verify-failed' });
    await expect(failed).rejects.toThrow('config.json');
    expect(await publisher.find({ release: RELEASE }, signal())).toBeUndefined();
  });

  it('notices that large weights changed before anything is sent', async () => {
    const artefact = await testArtefact(
      directory,
      { release: RELEASE },
      { weights: randomBytes(QUOTA_BYTES) },
    );
    const { source } = fileOf(artefact, 'model.safetensors');
    const content = await readFile(source);
    content[content.length - 1]! ^= 1;
    await writeFile(source, content);
    const failed = publish(artefact);
    await expect(failed).rejects.toMatchObject({ code: 'publish.verify-failed' });
    await expect(failed).rejects.toThrow('model.safetensors');
    expect(uploads()).toBe(0);
  });

  it('leaves main without it when it is taken back', async () => {
    const artefact = await listed(await artefactOf(), {});
    await publish(artefact);
    await commitByHand('NOTES.md', 'ours');
    await publisher.withdraw(artefact, signal());
    expect([...(await hub.filesAt(repo, 'main'))!.keys()]).toEqual(['NOTES.md']);
    hub.proxy.clear();
    await publish(artefact);
    expect(uploads()).toBe(0);
    const paths = [...artefact.files.map(({ path }) => path), 'NOTES.md'].sort();
    expect([...(await hub.filesAt(repo, 'main'))!.keys()].sort()).toEqual(paths);
  });

  it('says that the hub takes no more', async () => {
    const weights = randomBytes(QUOTA_BYTES + 1);
    const artefact = await testArtefact(directory, { release: RELEASE }, { weights });
    const failed = publish(artefact);
    await expect(failed).rejects.toMatchObject({ code: 'publish.rejected' });
    await expect(failed).rejects.toThrow(/model\.safetensors \(403: Storage quota exceeded\)/);
  });
});

describe('a hub that refuses', () => {
  it('is found out before a release: tokens', async () => {
    const id = { release: RELEASE };
    const reasons: [string, string][] = [
      ['', 'HF_TOKEN'],
      [READER, 'only read'],
      ['hf_unknown', '401'],
    ];
    for (const [token, reason] of reasons) {
      const checked = hub.publisher({ repo }, token).check(id, undefined, signal());
      await expect(checked).rejects.toMatchObject({ code: 'publish.unauthorized' });
      await expect(checked).rejects.toThrow(reason);
    }
    const elsewhere = hub.publisher({ repo: 'others/model' }).check(id, undefined, signal());
    await expect(elsewhere).rejects.toThrow('not a member of others');
    const unchecked = publish(await artefactOf(), hub.publisher({ repo }, READER));
    await expect(unchecked).rejects.toThrow(/write token.*HF_TOKEN/);
  });

  it('is found out before a release: names', async () => {
    const wrong = [
      { release: `${RELEASE}..1` },
      { release: `${RELEASE}.lock` },
      { release: 'x'.repeat(250) },
      { release: RELEASE, part: `gguf-${'x'.repeat(90)}` },
      { release: RELEASE, part: '-x' },
    ];
    for (const id of wrong) {
      const checked = publisher.check(id, undefined, signal());
      await expect(checked).rejects.toMatchObject({ code: 'publish.rejected' });
    }
  });

  it('makes private repositories, and does not publish what is private where all can see it', async () => {
    await publish(await artefactOf(), hub.publisher({ repo, private: true }));
    expect(await hub.get(`/api/models/${repo}`)).toMatchObject({ private: true });
    const open = `${repo}-open`;
    await publish(await artefactOf(), hub.publisher({ repo: open, private: false }));
    const careful = hub.publisher({ repo: open, private: true });
    const id = { release: NEXT };
    await expect(careful.check(id, undefined, signal())).rejects.toThrow('is public');
    await expect(publish(await artefactOf(NEXT), careful)).rejects.toThrow('is public');
  });

  it('does not get the token where a listing goes on elsewhere', async () => {
    await publish(await artefactOf());
    const headers = {
      link: '<http://127.0.0.1:9/more>; rel="next"',
      'content-type': 'application/json',
    };
    hub.proxy.fail({ kind: 'status', status: 200, headers, body: '[]', path: /\/tree\// });
    const failed = publish(await artefactOf(NEXT));
    await expect(failed).rejects.toMatchObject({ code: 'publish.rejected' });
    await expect(failed).rejects.toThrow('somewhere else');
  });

  it('does not bring the token into errors by repeating it', async () => {
    const artefact = await artefactOf();
    const headers = { 'content-type': 'application/json' };
    const { sha256: oid } = fileOf(artefact, 'model.safetensors');
    const objects = [{ oid, size: 1, error: { code: 422, message: `no ${WRITER}` } }];
    const answers = [
      { status: 400, path: /\/preupload\//, body: JSON.stringify({ error: `no ${WRITER}` }) },
      { status: 200, path: /\/batch$/, body: JSON.stringify({ objects }) },
    ];
    for (const answer of answers) {
      hub.proxy.fail({ kind: 'status', headers, ...answer });
      const failed = publish(artefact);
      await expect(failed).rejects.toMatchObject({ code: 'publish.rejected' });
      await expect(failed).rejects.toThrow('no [secret]');
    }
  });

  it('is not taken for one if it is something else', async () => {
    const html = { headers: { 'content-type': 'text/html' }, body: '<html>Log in</html>' };
    const artefact = await artefactOf();
    for (const path of [/\/refs$/, /\/commits\//, /\/preupload\//, /\/batch$/, /\/commit\//]) {
      hub.proxy.clear();
      hub.proxy.fail({ kind: 'status', status: 200, ...html, path });
      const failed = publish(artefact);
      await expect(failed, String(path)).rejects.toMatchObject({ code: 'publish.rejected' });
      await expect(failed).rejects.toThrow('HF_ENDPOINT');
    }
  });
});

describe('an alias on the hub', () => {
  const move = (alias: string, to = RELEASE) =>
    publisher.moveAlias({ alias, to, from: undefined, history: [] }, signal());

  it('is not a branch of people, nor main', async () => {
    await publish(await artefactOf());
    await expect(move('main')).rejects.toMatchObject({ code: 'publish.rejected' });
    await commitByHand('NOTES.md', 'ours');
    const { server } = hub;
    const headers = { authorization: `Bearer ${WRITER}`, 'content-type': 'application/json' };
    const url = `${server.endpoint}/api/models/${repo}/branch/staging`;
    await fetch(url, { method: 'POST', headers, body: '{"startingPoint": "main"}' });
    const refused = move('staging');
    await expect(refused).rejects.toMatchObject({ code: 'publish.alias-moved' });
    await expect(refused).rejects.toThrow('by hand');
    expect(server.commitOf(repo, 'staging')).toBe(server.commitOf(repo, 'main'));
  });

  it('is not one of a part if the repository is a target of its own', async () => {
    const other = hub.publisher({ repo: `${repo}-2` });
    await publish(await artefactOf(), other);
    await other.moveAlias({ alias: 'latest', to: RELEASE, from: undefined, history: [] }, signal());
    expect(await publisher.listAliases(signal())).toEqual([]);
    expect(await publisher.list(signal())).toEqual([]);
    expect(await other.listAliases(signal())).toHaveLength(1);
  });

  it('is finished by whoever tries again after the branch was not moved', async () => {
    for (const release of [RELEASE, NEXT]) await publish(await artefactOf(release));
    hub.proxy.fail({ kind: 'status', status: 403, path: /\/branch\/latest$/, times: 1 });
    await expect(move('latest')).rejects.toMatchObject({ code: 'publish.unauthorized' });
    expect(await hub.filesAt(repo, 'latest')).toBeUndefined();
    await move('latest');
    expect(hub.server.commitOf(repo, 'latest')).toBe(hub.server.commitOf(repo, RELEASE));
    hub.proxy.fail({ kind: 'status', status: 403, path: /\/branch\/latest$/, times: 1 });
    const again = () => promote(publisher, { release: NEXT }, 'latest', signal());
    await expect(again()).rejects.toMatchObject({ code: 'publish.unauthorized' });
    expect(await again()).toMatchObject({ isMoved: false });
    expect(hub.server.commitOf(repo, 'latest')).toBe(hub.server.commitOf(repo, NEXT));
  });

  it('is not guessed from a file that somebody changed', async () => {
    await publish(await artefactOf());
    await move('latest');
    const operations = [
      {
        operation: 'addOrUpdate' as const,
        path: 'aliases.json',
        content: new Blob(['{"latest":1}']),
      },
    ];
    const access = { accessToken: WRITER, hubUrl: hub.server.endpoint, branch: 'weldline_aliases' };
    await commit({ repo, title: 'By hand', operations, ...access });
    const read = publisher.readAlias('latest', undefined, signal());
    await expect(read).rejects.toMatchObject({ code: 'publish.rejected' });
  });
});

describe('Xet', () => {
  it("is used where the hub offers it, through weldline's own requests", async () => {
    const withXet = await startHubUnderTest({ hasXet: true, uploadsAtHub: false });
    try {
      const artefact = await artefactOf();
      // What compresses the store of the test does not read.
      const adapter = 'adapters/tone/adapter_model.safetensors';
      const random = await made(adapter, randomBytes(9_000));
      const files = artefact.files.map((file) => (file.path === adapter ? random : file));
      withXet.proxy.fail({ kind: 'status', status: 503, path: /xet-write-token/ });
      const done = new Map<string, number>();
      const { bytesSent } = await publish(
        { ...artefact, files },
        withXet.publisher({ repo }),
        ({ item, bytesDone }) => done.set(item, bytesDone),
      );
      expect(done.get(adapter)).toBe(random.size);
      const seen = await withXet.filesAt(repo, RELEASE);
      for (const { path, source } of files) {
        expect(seen?.get(path)?.equals(await readFile(source)), path).toBe(true);
      }
      expect(bytesSent).toBeGreaterThan(bytesOf(files));
      const asked = withXet.server.requests.filter(({ target }) => target === 'storage');
      const paths = asked.map(({ path }) => path.replace(/[0-9a-f]{64}/, ''));
      expect(paths).toEqual(expect.arrayContaining(['/v1/xorbs/default/', '/v1/shards']));
      expect(paths.filter((path) => path.startsWith('/upload'))).toEqual([]);
      expect(asked.filter(({ authorization }) => authorization?.includes(WRITER))).toEqual([]);
    } finally {
      await withXet.close();
    }
  });
});
