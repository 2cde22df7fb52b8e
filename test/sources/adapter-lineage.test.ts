import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { checkTrainedOn, type NamedAdapter } from '../../sources/adapter-lineage.ts';
import { FileDigests } from '../../sources/file-digests.ts';
import { type LocatedModel, locateModel, type ModelAccess } from '../../sources/model-input.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

let hub: TestHub | undefined;
afterEach(async () => {
  await hub?.close();
  hub = undefined;
});

const configOf = (trainedOn: string, revision?: string): string =>
  JSON.stringify({ peft_type: 'LORA', base_model_name_or_path: trainedOn, revision });

/** A directory for each adapter, with the model that it says it was trained on. */
async function directories(trainedOn: Readonly<Record<string, string>>): Promise<string> {
  const root = await temporaryDirectory();
  for (const [name, base] of Object.entries(trainedOn)) {
    await mkdir(join(root, name));
    await writeFile(join(root, name, 'adapter_config.json'), configOf(base));
  }
  return root;
}

const inDirectory = (path: string): LocatedModel => ({ kind: 'directory', path });

function namedIn(root: string, ...names: string[]): NamedAdapter[] {
  return names.map((id) => {
    const directory = join(root, id);
    return { id, model: directory, located: inDirectory(directory), directory };
  });
}

async function noRemoteSources(): Promise<never> {
  throw new Error('no test here has a model at such a place');
}

/** No hub is there to be asked. */
const NOWHERE: ModelAccess = {
  hub: { endpoint: 'http://127.0.0.1:9', token: undefined },
  cacheDirectory: '/nowhere',
  modelsDirectory: '/nowhere',
  digests: new FileDigests(),
  remote: noRemoteSources,
};

const check = (adapters: readonly NamedAdapter[]) =>
  checkTrainedOn(NOWHERE, inDirectory('/base'), adapters, { askHub: true, combination: undefined });

describe('directories', () => {
  const STAGES = { one: 'acme/base', two: '../one', three: '../two' };

  test('that were trained on each other are merged in that order', async () => {
    const root = await directories(STAGES);
    expect(await check(namedIn(root, 'one', 'two', 'three'))).toEqual([]);
    await expect(check(namedIn(root, 'one', 'three'))).rejects.toMatchObject({
      code: 'adapter.chain',
      message: expect.stringMatching(/below-1, model: .*one}\n.*below-2, model: .*two}\n.*three/),
    });
    await expect(check(namedIn(root, 'two', 'one'))).rejects.toMatchObject({
      code: 'adapter.chain',
    });
  });

  test('with DoRA on top of another, whose norms are not of the base', async () => {
    const root = await directories({ one: 'acme/base', two: 'acme/base', peft: 'x', mlx: 'x' });
    const write = (name: string, config: object) =>
      writeFile(join(root, name, 'adapter_config.json'), JSON.stringify(config));
    await write('one', { base_model_name_or_path: 'acme/base', use_dora: true });
    await write('two', { base_model_name_or_path: 'acme/base', use_dora: true });
    await write('peft', { base_model_name_or_path: '../one', use_dora: true });
    await write('mlx', { model: '../one', fine_tune_type: 'dora' });
    for (const name of ['peft', 'mlx']) {
      await expect(check(namedIn(root, 'one', name))).rejects.toMatchObject({
        code: 'adapter.chain',
        message: expect.stringMatching(
          /DoRA on top of .*one: .*Merge what it was trained on first/,
        ),
      });
    }
    await write('peft', { base_model_name_or_path: '../one', use_dora: false });
    expect(await check(namedIn(root, 'one', 'two', 'peft'))).toEqual([]);
  });

  test('are the same by whatever path', async () => {
    const root = await directories(STAGES);
    await symlink(join(root, 'one'), join(root, 'link'));
    expect(await check(namedIn(root, 'link', 'two'))).toEqual([]);
  });

  test('can be named by a path of where the training ran', async () => {
    const root = await directories({ one: 'acme/base' });
    await mkdir(join(root, 'out'));
    await mkdir(join(root, 'out', 'two'));
    await writeFile(join(root, 'out', 'two', 'adapter_config.json'), configOf(join(root, 'one')));
    await expect(check(namedIn(join(root, 'out'), 'two'))).rejects.toMatchObject({
      code: 'adapter.chain',
    });
  });

  test('in a circle are refused', async () => {
    const root = await directories({ one: '../two', two: '../one', self: '.' });
    for (const name of ['one', 'self']) {
      await expect(check(namedIn(root, name))).rejects.toMatchObject({
        code: 'adapter.chain',
        message: expect.stringContaining('in a circle'),
      });
    }
  });

  test('that go on and on are refused', async () => {
    const stages = Array.from({ length: 12 }, (_, index) => [`s${index}`, `../s${index + 1}`]);
    const root = await directories(Object.fromEntries(stages));
    await expect(check(namedIn(root, 's0'))).rejects.toMatchObject({
      code: 'adapter.chain',
      message: expect.stringContaining('without end'),
    });
  });

  test('a merged model that kept the configuration of its adapter is a base', async () => {
    const root = await directories({ merged: 'acme/base', two: '../merged' });
    await writeFile(join(root, 'merged', 'config.json'), '{}');
    expect(await check(namedIn(root, 'two'))).toEqual([]);
  });

  test('of MLX name their base too', async () => {
    const root = await directories({ one: 'acme/base', two: 'x' });
    await writeFile(join(root, 'two', 'adapter_config.json'), JSON.stringify({ model: '../one' }));
    await expect(check(namedIn(root, 'two'))).rejects.toMatchObject({ code: 'adapter.chain' });
  });
});

describe('repositories', () => {
  const base = { main: { 'config.json': '{}', 'model.safetensors': 'w' } };
  const adapter = (trainedOn: string, revision?: string) => ({
    main: {
      'adapter_config.json': configOf(trainedOn, revision),
      'adapter_model.safetensors': 'w',
    },
  });

  async function start(one: ReturnType<typeof adapter>, two: ReturnType<typeof adapter>) {
    hub = await startTestHub({ 'acme/base': base, 'acme/one': one, 'acme/two': two });
    const access: ModelAccess = {
      hub: hub.connection(),
      cacheDirectory: hub.cacheDirectory,
      modelsDirectory: '/nowhere',
      digests: new FileDigests(),
      remote: noRemoteSources,
    };
    const locate = (name: string, role: 'base' | 'adapter') =>
      locateModel(access, { model: `hf://acme/${name}`, role });
    const named = async (id: string, content: ReturnType<typeof adapter>) => {
      const directory = join(await temporaryDirectory(), id);
      await mkdir(directory);
      for (const [name, text] of Object.entries(content.main)) {
        await writeFile(join(directory, name), text);
      }
      return { id, model: `hf://acme/${id}`, located: await locate(id, 'adapter'), directory };
    };
    const first = await named('one', one);
    const second = await named('two', two);
    const onBase = await locate('base', 'base');
    const run = (adapters: readonly NamedAdapter[], askHub = true) =>
      checkTrainedOn(access, onBase, adapters, { askHub, combination: undefined });
    return { first, second, run, commit: hub.commitOf('acme/base', 'main') };
  }

  test('that were trained on each other are found', async () => {
    const { first, second, run } = await start(adapter('acme/base'), adapter('acme/one'));
    expect(await run([first, second])).toEqual([]);
    await expect(run([second])).rejects.toMatchObject({
      code: 'adapter.chain',
      message: expect.stringContaining('model: hf://acme/one'),
    });
    // Nobody is asked: what is said then depends on names alone.
    expect(await run([first, second], false)).toEqual([]);
    expect(await run([second], false)).toEqual([expect.stringMatching(/trained on acme\/one/)]);
  });

  test('that name a model which the hub does not have, or a path, are merged', async () => {
    const { first, second, run } = await start(adapter('acme/gone'), adapter('/etc'));
    expect(await run([first, second])).toEqual([expect.stringMatching(/trained on acme\/gone/)]);
  });

  test('that name another commit of the base are refused', async () => {
    const other = 'd'.repeat(40);
    const { first, run } = await start(adapter('acme/base', other), adapter('acme/base'));
    await expect(run([first])).rejects.toMatchObject({ code: 'adapter.other-base' });
  });
});
