/** What must hold after a fault, and what must have come out at the end. */
import { createHash } from 'node:crypto';
import { lstat, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyArtefact } from '../../audit/verify-artefact.ts';
import { readEnvironment } from '../../config/environment.ts';
import { digestFile } from '../../engine/durable-files.ts';
import { modelAccess } from '../../workers/model-access.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import { entriesOf } from './points.ts';
import type { RoundPlace, SoakWorld } from './soak-world.ts';

/** SHA-256 by `<artefact>/<path>`. */
export type Bytes = ReadonlyMap<string, string>;

/** These tell when a release was made, and where; all other files are the same each time. */
const RECORDS = /\/(README\.md|bom\.cdx\.json|provenance\.intoto\.json|release\.json)$/;
/** What says of a directory that it is finished, and names its files. */
const MANIFESTS = ['weldline.json', 'conversion.json'];

interface Listed {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * Whatever looks finished and is not: merges, conversions, published artefacts, aliases. Empty at any
 * moment of any release, whatever befell it.
 */
export async function unfinished(world: SoakWorld, place: RoundPlace): Promise<string[]> {
  const { home, target } = place;
  const merges = join(home, 'merges');
  const problems: string[] = [];
  for (const name of await entriesOf(merges)) {
    problems.push(...(await damagesOf(join(merges, name, 'sealed'))));
  }
  for (const name of await entriesOf(join(home, 'conversions'))) {
    problems.push(...(await damagesOf(join(home, 'conversions', name))));
  }
  for (const name of await publishedIn(target)) {
    const directory = join(target, name);
    if ((await lstat(directory)).isDirectory()) {
      const names = await entriesOf(directory);
      if (!names.includes('release.json')) problems.push(`${directory} has no release.json`);
      if (!MANIFESTS.some((each) => names.includes(each))) {
        problems.push(`${directory} has no manifest`);
      }
      problems.push(...(await damagesOf(directory)));
    } else if (!(await entriesOf(directory)).includes('release.json')) {
      problems.push(`the alias ${directory} leads to no release`);
    }
  }
  return [...problems, ...(await unfinishedInBucket(world, place))];
}

async function damagesOf(directory: string): Promise<string[]> {
  const problems: string[] = [];
  for (const manifest of MANIFESTS) {
    const text = await readFile(join(directory, manifest), 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    for (const { path, sha256 } of filesOf(text)) {
      const found = await digestFile(join(directory, path)).catch(() => undefined);
      if (found?.sha256 !== sha256) problems.push(`${join(directory, path)} is not as listed`);
    }
  }
  return problems;
}

function filesOf(manifest: string): readonly Listed[] {
  return (JSON.parse(manifest) as { files: readonly Listed[] }).files;
}

async function unfinishedInBucket({ bucket }: SoakWorld, { prefix }: RoundPlace) {
  const objects = await bucket.read(prefix);
  const problems: string[] = [];
  for (const [key, body] of objects) {
    const [folder = '', file = ''] = key.split(/\/(.*)/s);
    if (folder === 'aliases') {
      const { release } = JSON.parse(body.toString('utf8')) as { release: string };
      const isThere = [...objects.keys()].some(
        (each) => each.startsWith(release) && each.endsWith('/release.json'),
      );
      if (!isThere) problems.push(`the alias ${key} leads to no release`);
    }
    if (file !== 'release.json') continue;
    for (const name of MANIFESTS) {
      const manifest = objects.get(`${folder}/${name}`)?.toString('utf8');
      if (manifest === undefined) continue;
      for (const { path, sha256 } of filesOf(manifest)) {
        const found = objects.get(`${folder}/${path}`);
        if (found === undefined || sha256Of(found) !== sha256) {
          problems.push(`s3 ${folder}/${path} is not as listed`);
        }
      }
    }
  }
  return problems;
}

/** Names in a published directory that are meant to be seen: no attempt is among them. */
async function publishedIn(target: string): Promise<readonly string[]> {
  return (await entriesOf(target)).filter(
    (name) => !name.startsWith('.') && !/\.(partial|left)$/.test(name),
  );
}

/** What was published, without the records of when and where. */
export async function publishedBytes({ target }: RoundPlace): Promise<Bytes> {
  const bytes = new Map<string, string>();
  for (const [key, body] of await publishedFiles(target)) {
    if (!RECORDS.test(`/${key}`)) bytes.set(key, sha256Of(body));
  }
  return bytes;
}

async function publishedFiles(target: string): Promise<Map<string, Uint8Array>> {
  const all = new Map<string, Uint8Array>();
  for (const name of await publishedIn(target)) {
    if ((await lstat(join(target, name))).isSymbolicLink()) continue;
    for (const [path, body] of await readFiles(join(target, name)))
      all.set(`${name}/${path}`, body);
  }
  return all;
}

/** Everything that is wrong with a release that says that it is finished. */
export async function wrongs(
  world: SoakWorld,
  place: RoundPlace,
  expected: Bytes | undefined,
): Promise<string[]> {
  const problems = await unfinished(world, place);
  const local = await publishedFiles(place.target);
  if (expected !== undefined) {
    problems.push(...differences('published', expected, await publishedBytes(place)));
  }
  const remote = new Map<string, Uint8Array>(await world.bucket.read(place.prefix));
  for (const key of [...remote.keys()]) if (key.startsWith('aliases/')) remote.delete(key);
  problems.push(...differences('bucket', digestsOf(local), digestsOf(remote)));
  for (const name of await entriesOf(place.target)) {
    if (/\.(partial|left)$/.test(name)) problems.push(`${name} is left in ${place.target}`);
    if (name !== 'latest' && !name.startsWith('merged-')) continue;
    problems.push(...(await failedClaims(place, join(place.target, name))));
  }
  const aliases = await world.bucket.keys(`${place.prefix}aliases/`);
  if (aliases.length === 0) problems.push('no alias in the bucket');
  if (!(await entriesOf(place.target)).includes('latest'))
    problems.push('no alias in the directory');
  return problems;
}

function differences(what: string, expected: Bytes, found: Bytes): string[] {
  return [...new Set([...expected.keys(), ...found.keys()])].flatMap((key) => {
    if (expected.get(key) === found.get(key)) return [];
    const how = found.has(key) ? (expected.has(key) ? 'differs' : 'is too much') : 'is missing';
    return [`${what}: ${key} ${how}`];
  });
}

async function failedClaims({ variables }: RoundPlace, target: string): Promise<string[]> {
  const { claims } = await verifyArtefact({
    access: modelAccess(readEnvironment(variables)),
    target,
    mayFetch: false,
    signal: new AbortController().signal,
    onBytes: () => undefined,
  });
  return claims
    .filter(({ status }) => status === 'failed')
    .map(({ claim, text }) => `${target} ${claim}: ${text}`);
}

function digestsOf(files: ReadonlyMap<string, Uint8Array>): Bytes {
  return new Map([...files].map(([key, body]) => [key, sha256Of(body)]));
}

function sha256Of(body: Uint8Array): string {
  return createHash('sha256').update(body).digest('hex');
}
