import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readTextFile } from '../../engine/model-files.ts';
import { resolveHubModel } from '../../sources/hub-model.ts';
import { hubModelFiles } from '../../sources/hub-model-files.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { startTestHub } from '../hub-server/test-hub.ts';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'weldline-model-'));
});
afterEach(() => rm(directory, { recursive: true }));

describe('openModelDirectory', () => {
  it('lists regular files and links to them, without hidden ones', async () => {
    await mkdir(path.join(directory, 'model/sub/.cache'), { recursive: true });
    await writeFile(path.join(directory, 'blob'), '{}');
    await symlink('../blob', path.join(directory, 'model/config.json'));
    await symlink('../nowhere', path.join(directory, 'model/broken.json'));
    await writeFile(path.join(directory, 'model/sub/chat.jinja'), 'abc');
    await writeFile(path.join(directory, 'model/.gitattributes'), '');
    await writeFile(path.join(directory, 'model/sub/.cache/x'), '');
    const files = await openModelDirectory(path.join(directory, 'model'));
    expect([...files.sizes]).toEqual([
      ['config.json', 2],
      ['sub/chat.jinja', 3],
    ]);
    expect(await readTextFile(files, 'sub/chat.jinja')).toBe('abc');
    await expect(files.open('../blob')).rejects.toMatchObject({ code: 'source.not-found' });
  });

  it('does not walk in circles', async () => {
    await symlink('.', path.join(directory, 'loop'));
    await writeFile(path.join(directory, 'config.json'), '{}');
    const files = await openModelDirectory(directory);
    expect(files.sizes.has('config.json')).toBe(true);
  });

  it('says how a hub model is written when there is no directory', async () => {
    await expect(openModelDirectory(path.join(directory, 'org/name'))).rejects.toMatchObject({
      code: 'source.not-found',
      message: expect.stringContaining('hf://org/name'),
    });
  });

  it('says that a file is none', async () => {
    const file = path.join(directory, 'adapter.safetensors');
    await writeFile(file, '');
    await expect(openModelDirectory(file)).rejects.toMatchObject({
      code: 'source.not-found',
      message: expect.stringContaining('is a file. Give the directory that holds it'),
    });
  });
});

it('hubModelFiles shows a folder of a repository as a model', async () => {
  const hub = await startTestHub({
    'acme/lora': { main: { 'README.md': 'x', 'best/adapter_config.json': '{"r": 4}' } },
  });
  const connection = hub.connection();
  const model = await resolveHubModel(connection, { repo: 'acme/lora', revision: 'main' });
  const files = hubModelFiles(connection, model, 'best');
  expect([...files.sizes]).toEqual([['adapter_config.json', 8]]);
  expect(files.name).toBe(`hf://acme/lora@${model.commit}/best`);
  expect(await readTextFile(files, 'adapter_config.json')).toBe('{"r": 4}');
  await expect(files.open('README.md')).rejects.toMatchObject({ code: 'source.not-found' });
  await hub.close();
});
