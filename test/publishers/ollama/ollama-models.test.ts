import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { modelfileOf } from '../../../publishers/ollama/modelfile.ts';
import { modelName, tagOf } from '../../../publishers/ollama/ollama-names.ts';
import { OllamaPublisher } from '../../../publishers/ollama/ollama-publisher.ts';
import type { Artefact } from '../../../publishers/publisher.ts';
import { TEST_PATIENCE } from '../../conformance/publisher.ts';
import { type OllamaServer, startOllamaServer } from '../../harness/ollama-server.ts';
import { testArtefact } from '../../harness/test-artefact.ts';
import { chatTemplates, modelfileInput } from './chat-templates.ts';

const ID = { release: 'merged-tiny-1.0.0-adapter-tone-3', part: 'gguf-q4_k_m' };
const NAME = 'support:merged-tiny-1.0.0-adapter-tone-3-q4_k_m';
const signal = new AbortController().signal;
const options = { signal, onProgress: () => undefined, publishedAt: [] };

describe('models in Ollama', () => {
  let server: OllamaServer;
  let directory: string;
  let publisher: OllamaPublisher;
  beforeAll(async () => {
    server = await startOllamaServer();
  });
  afterAll(() => server.close());
  beforeEach(async () => {
    server.clear();
    directory = await mkdtemp(join(tmpdir(), 'weldline-ollama-'));
    publisher = new OllamaPublisher({ model: 'support', endpoint: server.origin }, TEST_PATIENCE);
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  async function withFile(path: string, content: string): Promise<Artefact> {
    const artefact = await testArtefact(directory, ID);
    const source = join(await mkdtemp(join(directory, 'file-')), path);
    await writeFile(source, content);
    const file = { path, source, size: content.length, sha256: '0'.repeat(64) };
    return { ...artefact, files: [file, ...artefact.files] };
  }

  it('have the template, system prompt, parameters and licence of their Modelfile', async () => {
    const { text } = modelfileOf(modelfileInput(chatTemplates().get('smollm2')!));
    await publisher.publish(await withFile('Modelfile', text!), options);
    const model = server.models.get(NAME);
    expect(model?.template).toContain('{{ "<|im_start|>user\\n" }}{{ .Content }}');
    expect(model?.system).toContain('assistant named SmolLM');
    expect(model?.parameters).toEqual({
      stop: ['<|im_end|>', '<|im_start|>'],
      ...{ temperature: 0.6, top_k: 20, top_p: 0.95 },
    });
    expect(model?.licenses[0]).toBe('apache-2.0');
    // An alias answers as the release that it points at.
    const move = {
      alias: 'production',
      part: ID.part,
      to: ID.release,
      from: undefined,
      history: [],
    };
    await publisher.moveAlias(move, signal);
    const { licenses, ...alias } = server.models.get('support:production-q4_k_m')!;
    expect(alias).toEqual({ ...model, licenses: undefined });
    expect(licenses.slice(0, -1)).toEqual(model?.licenses);
  });

  it('are refused where Ollama would refuse or misread them', async () => {
    const cases: [Artefact, RegExp][] = [
      [await withFile('Modelfile', 'FROM ./x\nADAPTER ./y\n'), /Modelfile has ADAPTER/],
      [await withFile('Modelfile', 'TEMPLATE """{{ if"""\n'), /template error/],
      [await withFile('second.gguf', 'GGUF'), /has 2.*Leave split out/],
      [await testArtefact(directory, ID, { weights: Buffer.from('no model') }), /GGUF format/],
    ];
    for (const [artefact, message] of cases) {
      await expect(publisher.publish(artefact, options)).rejects.toMatchObject({
        code: 'publish.rejected',
        message: expect.stringMatching(message),
      });
      expect(server.models.size).toBe(0);
    }
  });

  it('that somebody else made are left alone', async () => {
    for (const name of [NAME, 'support:production-q4_k_m']) server.addForeign(name);
    const artefact = await testArtefact(directory, ID);
    const refused = { code: 'publish.conflict', message: expect.stringContaining(NAME) };
    await expect(publisher.publish(artefact, options)).rejects.toMatchObject(refused);
    await expect(publisher.check(ID, undefined, signal)).rejects.toMatchObject(refused);
    await publisher.withdraw(ID, signal);
    expect(await publisher.list(signal)).toEqual([]);
    expect(server.models.size).toBe(2);

    const other = { ...ID, release: `${ID.release}-rc` };
    await publisher.publish(await testArtefact(directory, other), options);
    const move = { alias: 'production', part: ID.part, to: other.release, from: undefined };
    await expect(publisher.moveAlias({ ...move, history: [] }, signal)).rejects.toMatchObject({
      code: 'publish.conflict',
    });
  });

  it('are no releases once their weights are others', async () => {
    const artefact = await testArtefact(directory, ID);
    await publisher.publish(artefact, options);
    const models = server.models as Map<string, object>;
    models.set(NAME, { ...models.get(NAME), weights: `sha256:${'1'.repeat(64)}` });
    expect(await publisher.find(ID, signal)).toBeUndefined();
    await expect(publisher.publish(artefact, options)).rejects.toMatchObject({
      code: 'publish.conflict',
    });
  });

  it('share weights, which are sent once and stay while one needs them', async () => {
    const weights = Buffer.from(`GGUF${'x'.repeat(100_000)}`);
    const first = await testArtefact(directory, ID, { weights });
    const id = { ...ID, release: `${ID.release}-rc` };
    const second = await testArtefact(directory, id, { weights });
    expect(await publisher.publish(first, options)).toMatchObject({ bytesSent: weights.length });
    expect(await publisher.publish(second, options)).toMatchObject({ bytesSent: 0 });
    await publisher.withdraw(ID, signal);
    expect(server.blobs.size).toBe(1);
    await publisher.withdraw(id, signal);
    expect(server.blobs.size).toBe(0);
  });

  it('are asked for of Ollama only', async () => {
    const other = new OllamaPublisher(
      { model: 'support', endpoint: `${server.origin}/api/show?` },
      {
        ...TEST_PATIENCE,
      },
    );
    await expect(other.list(signal)).rejects.toMatchObject({ name: 'WeldlineError' });
  });

  it('are called by names that Ollama takes', () => {
    expect(tagOf(ID.release, ID.part)).toBe('merged-tiny-1.0.0-adapter-tone-3-q4_k_m');
    expect(tagOf('production', undefined)).toBe('production');
    const long = ['a', 'b'].map((end) => tagOf(`${'long'.repeat(30)}${end}`, 'gguf-q8_0'));
    expect(new Set(long).size).toBe(2);
    for (const tag of [...long, tagOf('.hidden/name', 'awq')])
      expect(tag).toMatch(/^\w[\w.-]{0,79}$/);
    expect(modelName('library/support')).toBe('support');
    for (const name of ['a.b/c', 'a/b/c', 'x'.repeat(81), '-x', '', 'a b']) {
      expect(() => modelName(name), name).toThrow(
        expect.objectContaining({ code: 'publish.rejected' }),
      );
    }
  });
});
