/**
 * What other clients of registries make of our artefacts, and we of theirs.
 *
 * `modelpack-config.schema.json` is `schema/config-schema.json` of github.com/modelpack/model-spec,
 * under the Apache License 2.0.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openOciPublisher } from '../../publishers/oci/oci-publisher.ts';
import { ociSource } from '../../sources/oci-source.ts';
import { TEST_PATIENCE } from '../conformance/publisher-stage.ts';
import {
  type RegistryServer,
  startRegistry,
  writeDockerConfig,
} from '../harness/registry-server.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { runServicesPython } from '../services-python.ts';

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

let registry: RegistryServer;
let host: string;
let directory: string;

beforeAll(async () => {
  registry = await startRegistry({ hasPassword: true });
  host = new URL(registry.origin).host;
  directory = await mkdtemp(join(tmpdir(), 'weldline-oras-'));
  await writeDockerConfig(directory, [host]);
});
afterAll(async () => {
  await registry?.close();
  await rm(directory, { recursive: true, force: true });
});

describe('oras', () => {
  it('pulls what weldline published, and weldline reads what oras pushed', async () => {
    const release = 'merged-tiny-1.0.0-adapter-tone-3';
    const artefact = await testArtefact(directory, { release });
    const target = { repository: `${host}/models/tiny` };
    const publisher = openOciPublisher(target, directory, TEST_PATIENCE);
    const { location } = await publisher.publish(artefact, {
      signal: new AbortController().signal,
      onProgress: () => undefined,
      publishedAt: [],
    });

    const out = join(directory, 'out');
    const pushed = { 'config.json': '{"model_type":"llama"}', 'model.safetensors': 'weights' };
    const { paths, layers, artifactType } = (await runServicesPython(here('oras_client.py'), {
      ...{ pulled: location.replace('oci://', ''), out, pushed: `${host}/models/own:1` },
      ...{ files: pushed, config: join(directory, 'config.json') },
      schema: JSON.parse(await readFile(here('modelpack-config.schema.json'), 'utf8')),
    })) as { paths: string[]; layers: Record<string, string>; artifactType: string };
    expect(artifactType).toBe('application/vnd.cncf.model.manifest.v1+json');
    expect(paths.sort()).toEqual(artefact.files.map(({ path }) => path).sort());
    for (const { path, source } of artefact.files) {
      expect((await readFile(join(out, path))).equals(await readFile(source)), path).toBe(true);
    }
    const all = await readdir(out, { recursive: true, withFileTypes: true });
    expect(all.filter((entry) => entry.isFile())).toHaveLength(artefact.files.length);
    expect(layers).toEqual({
      'config.json': 'application/vnd.cncf.model.weight.config.v1.raw',
      'model.safetensors': 'application/vnd.cncf.model.weight.v1.raw',
      'weldline.json': 'application/vnd.cncf.model.doc.v1.raw',
      'adapters/tone/adapter_model.safetensors': 'application/vnd.cncf.model.weight.v1.raw',
      'README.md': 'application/vnd.cncf.model.doc.v1.raw',
      'provenance.intoto.json': 'application/vnd.cncf.model.doc.v1.raw',
      'release.json': 'application/vnd.cncf.model.doc.v1.raw',
    });

    const source = ociSource(directory, TEST_PATIENCE);
    const model = await source.resolve(`oci://${host}/models/own:1`);
    expect(model.files.map(({ path }) => path)).toEqual(Object.keys(pushed));
    for (const file of model.files) {
      const opened = source.open(model, file);
      const text = Buffer.from(await opened.read(0, opened.size)).toString();
      expect(text).toBe(pushed[file.path as keyof typeof pushed]);
      await opened.close();
    }
  });
});
