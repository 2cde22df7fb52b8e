import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type Artefact,
  type ArtefactDescription,
  type ArtefactFile,
  type ArtefactId,
  artefactNameOf,
  RELEASE_FILE,
} from '../../publishers/publisher.ts';

export interface TestArtefactOptions {
  readonly kind?: ArtefactDescription['kind'];
  /** Of the weights; random if not given, so that no target has the bytes already. */
  readonly weights?: Buffer;
  readonly readme?: string;
  /** Of the release, ISO 8601. */
  readonly createdAt?: string;
}

/** Beside the other files it is large: bytes that are sent tell whether it was. */
const WEIGHTS_BYTES = 200_000;
const ADAPTER = Buffer.from('factors of an adapter '.repeat(50));

/** Name of the file of weights. */
export function weightsOf(kind: ArtefactDescription['kind']): string {
  return kind.startsWith('gguf') ? 'model-q4_k_m.gguf' : 'model.safetensors';
}

/** An artefact as a release assembles it, with small files of its own below `directory`. */
export async function testArtefact(
  directory: string,
  id: ArtefactId,
  options: TestArtefactOptions = {},
): Promise<Artefact> {
  const { kind = id.part === undefined ? 'merged' : 'gguf' } = options;
  const { weights = randomWeights(kind), readme = '# A model\n' } = options;
  const { createdAt = '2026-01-02T03:04:05.000Z' } = options;
  const root = await mkdtemp(join(directory, 'artefact-'));
  const manifest = JSON.stringify({ weights: sha256(weights) });
  const manifestDigest = sha256(Buffer.from(manifest));
  const planDigest = sha256(Buffer.from(`plan of ${manifestDigest}`));
  const run = { workflowId: 'tiny-1.0.0', runId: 'run-1' };
  const release = {
    ...{ format: 'weldline.release', name: 'tiny', version: '1.0.0', kind },
    ...{ ...id, artefact: artefactNameOf(id), manifestDigest, plan: planDigest },
    run: { ...run, startedAt: createdAt },
  };
  const contents: [string, string | Buffer][] = [
    ['config.json', '{"architectures":["LlamaForCausalLM"]}'],
    [weightsOf(kind), weights],
    [kind === 'merged' ? 'weldline.json' : 'conversion.json', manifest],
    ['adapters/tone/adapter_model.safetensors', ADAPTER],
    ['README.md', readme],
    ['provenance.intoto.json', '{"_type":"https://in-toto.io/Statement/v1"}'],
    [RELEASE_FILE, JSON.stringify(release)],
  ];
  const files: ArtefactFile[] = [];
  for (const [path, content] of contents) {
    const bytes = Buffer.from(content);
    const source = join(root, path);
    await mkdir(dirname(source), { recursive: true });
    await writeFile(source, bytes);
    files.push({ path, size: bytes.length, sha256: sha256(bytes), source });
  }
  return {
    ...{ ...id, manifestDigest, planDigest, files },
    description: { ...DESCRIPTION, kind, run, createdAt },
  };
}

/** No target has such bytes; where a format is asked for, they begin as a file of it. */
function randomWeights(kind: ArtefactDescription['kind']): Buffer {
  const bytes = randomBytes(WEIGHTS_BYTES);
  return kind.startsWith('gguf') ? Buffer.concat([ggufStart(), bytes]) : bytes;
}

/** The header of a GGUF of no tensors, which says that it is a `llama`. */
function ggufStart(): Buffer {
  const number = (value: number, bytes: 4 | 8): Buffer => {
    const buffer = Buffer.alloc(bytes);
    buffer.writeUInt32LE(value);
    return buffer;
  };
  const text = (value: string): Buffer[] => [number(value.length, 8), Buffer.from(value)];
  const [version, tensors, values, string] = [
    number(3, 4),
    number(0, 8),
    number(1, 8),
    number(8, 4),
  ];
  const entry = [...text('general.architecture'), string, ...text('llama')];
  return Buffer.concat([Buffer.from('GGUF'), version, tensors, values, ...entry]);
}

const DESCRIPTION: Omit<ArtefactDescription, 'kind' | 'run' | 'createdAt'> = {
  name: 'tiny',
  version: '1.0.0',
  base: `hf://org/tiny@${'a'.repeat(40)}`,
  adapters: [{ id: 'tone', model: `hf://org/tone@${'b'.repeat(40)}` }],
  metrics: { 'calculator/exact_match': 0.95 },
  gate: 'passed',
  license: 'apache-2.0',
  labels: { architecture: 'llama', language: 'en' },
};

export function bytesOf(files: readonly ArtefactFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
