/** A release as it is published: a merge of tiny models, its adapters, and all its documents. */
import { createHash, generateKeyPairSync } from 'node:crypto';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BOM_FILE, billOfMaterials } from '../../attest/bom.ts';
import type { AttestationFacts, AttestedFile, ModelPlace } from '../../attest/facts.ts';
import { keySigner } from '../../attest/key-signer.ts';
import { SIGNATURE_FILE, signModel } from '../../attest/model-signature.ts';
import { provenanceStatement } from '../../attest/provenance.ts';
import { PROVENANCE_FILE } from '../../attest/provenance-terms.ts';
import { sha256Of } from '../../engine/canonical-json.ts';
import { formatManifest, type Manifest } from '../../engine/manifest.ts';
import { mergeModel } from '../../engine/merge/merge-model.ts';
import { chooseResources } from '../../engine/merge/resources.ts';
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { planDirectories, writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../doubles/tiny-model.ts';

export const RELEASE = 'merged-tiny-1.0.0-adapter-tone-1';
const RUN = { workflowId: 'tone-1.0.0', runId: 'b7f2', startedAt: '2026-11-28T10:00:00.000Z' };

export interface PublishedRelease {
  readonly directory: string;
  readonly base: string;
  readonly publicKey: string;
  readonly manifest: Manifest;
}

export interface ReleaseOptions {
  /** Where the base is said to be; a directory called `tiny` by default. */
  readonly base?: { readonly model: string; readonly commit?: string; readonly pin?: string };
  /** Of two adapters; one by default. */
  readonly combination?: MergeOptions['combination'];
  readonly isSigned?: boolean;
}

/** Makes a release in `root`, with two threads. */
export async function publishRelease(
  root: string,
  { base: origin = { model: 'tiny' }, combination, isSigned = true }: ReleaseOptions = {},
): Promise<PublishedRelease> {
  const path = (name: string) => join(root, name);
  await writeFiles(path('tiny'), baseFiles(tinyBase({ shards: 2 })));
  await writeFiles(path('a'), adapterFiles(tinyAdapter()));
  const others = combination === undefined ? {} : { b: path('b') };
  if (combination !== undefined) {
    await writeFiles(path('b'), adapterFiles(tinyAdapter({ seed: 5 })));
  }
  const directories = { base: path('tiny'), adapter: path('a'), others };
  const roots = { base: path('tiny'), a: path('a'), ...others };
  const plan = await planDirectories(directories, { combination });
  const directory = path(RELEASE);
  const { manifest } = await mergeModel({
    plan,
    roots,
    output: directory,
    resources: chooseResources(plan, { threads: 2, memoryBudgetBytes: 400_000_000 }),
    provenance: { inputs: { base: origin, a: { model: 'tone' }, b: { model: 'style' } } },
  });
  for (const { id, files } of manifest.inputs.slice(1)) {
    for (const file of files) {
      const target = join(directory, 'adapters', id, file.path);
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, await readFile(join(root, id, file.path)));
    }
  }
  await writeDocuments(directory, manifest);
  const { publicKey } = await writeSignature(root, directory, isSigned);
  return { directory, base: path('tiny'), publicKey, manifest };
}

/** A conversion of a release as it is published, with a file that stands for its weights. */
export async function publishConversion(
  root: string,
  { manifest }: Pick<PublishedRelease, 'manifest'>,
): Promise<string> {
  const directory = join(root, `${RELEASE}-gguf-f16`);
  const weights = Buffer.from('GGUF');
  const file = {
    path: 'model.gguf',
    size: weights.length,
    sha256: createHash('sha256').update(weights).digest('hex'),
  };
  const id = 'gguf-f16';
  const conversion = { format: 'weldline.conversion', id, kind: 'gguf', files: [file] };
  const text = `${JSON.stringify(conversion, null, 2)}\n`;
  await mkdir(directory);
  await writeFile(join(directory, file.path), weights);
  await writeFile(join(directory, 'conversion.json'), text);
  const { engine, plan, inputs, options } = manifest;
  const release = {
    format: 'weldline.release',
    ...{ artefact: `${RELEASE}-gguf-f16`, manifestDigest: sha256Of(text), conversion },
    ...{ run: RUN, engine, plan, inputs, options, warnings: [], merge: manifest },
    contents: await filesIn(directory),
  };
  await writeFile(join(directory, 'release.json'), `${JSON.stringify(release, null, 2)}\n`);
  return directory;
}

/** Every file below a directory with size and digest, by path. */
export async function filesIn(directory: string): Promise<AttestedFile[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files: AttestedFile[] = [];
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    files.push({ path: path.slice(directory.length + 1), size: bytes.length, sha256 });
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function writeDocuments(directory: string, manifest: Manifest): Promise<void> {
  const manifestDigest = sha256Of(formatManifest(manifest));
  const factsNow = async () => factsOf(manifest, manifestDigest, await filesIn(directory));
  await writeFile(join(directory, 'README.md'), '# A card\n');
  await writeFile(join(directory, BOM_FILE), billOfMaterials(await factsNow()));
  const { engine, plan, inputs, options, rules, configEdits, tensors, warnings, files } = manifest;
  const release = {
    format: 'weldline.release',
    ...{ name: 'tone', version: '1.0.0', artefact: RELEASE, release: RELEASE, kind: 'merged' },
    ...{ run: RUN, engine, plan, manifestDigest, inputs, options, rules, configEdits, tensors },
    ...{ warnings: [...warnings, 'what was measured later'], files },
    contents: await filesIn(directory),
  };
  await writeFile(join(directory, 'release.json'), `${JSON.stringify(release, null, 2)}\n`);
  await writeFile(join(directory, PROVENANCE_FILE), provenanceStatement(await factsNow()));
}

function factsOf(
  manifest: Manifest,
  manifestDigest: string,
  files: readonly AttestedFile[],
): AttestationFacts {
  const [base, ...adapters] = manifest.inputs.map((input) => ({ ...input, place: placeOf(input) }));
  if (base === undefined) throw new Error('a merge without a base');
  return {
    artefact: { name: RELEASE, version: '1.0.0', manifestDigest },
    files,
    base: withoutUndefined(base),
    adapters: adapters.map(withoutUndefined),
    recipe: { name: 'tone', digest: 'c'.repeat(64), document: { name: 'tone' } },
    engine: manifest.engine,
    plan: manifest.plan,
    options: manifest.options,
    tools: {},
    metrics: [],
    run: { ...RUN, finishedAt: '2026-11-28T10:05:00.000Z' },
  };
}

type Described = Manifest['inputs'][number] & { readonly place: ModelPlace };

function withoutUndefined({ id, model, files, place }: Described): AttestationFacts['base'] {
  return { id, model, files, place };
}

function placeOf({ model, commit, pin }: Manifest['inputs'][number]): ModelPlace {
  if (commit !== undefined) {
    return { kind: 'hub', repo: model.slice('hf://'.length), commit, folder: '' };
  }
  return pin === undefined ? { kind: 'directory' } : { kind: 'http', uri: model, pin };
}

/** Signs with a new key; the public half is written in any case. */
async function writeSignature(
  root: string,
  directory: string,
  isSigned: boolean,
): Promise<{ readonly publicKey: string }> {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = join(root, 'key.pem');
  const pem = pair.privateKey.export({ format: 'pem', type: 'pkcs8' });
  await writeFile(key, pem, { mode: 0o600 });
  const publicKey = pair.publicKey.export({ format: 'pem', type: 'spki' }).toString();
  if (isSigned) {
    const signer = await keySigner(key);
    const text = await signModel({ name: RELEASE, files: await filesIn(directory), signer });
    await writeFile(join(directory, `${SIGNATURE_FILE}.new`), text);
    await rename(join(directory, `${SIGNATURE_FILE}.new`), join(directory, SIGNATURE_FILE));
  }
  return { publicKey };
}
