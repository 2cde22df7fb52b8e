import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  CONVERSION_FILE,
  type ConversionFindings,
  makeConversion,
  readConversion,
} from '../../conversion/conversion-store.ts';
import { sha256Of } from '../../engine/canonical-json.ts';

const facts = {
  id: 'gguf-f16',
  kind: 'gguf' as const,
  key: sha256Of('the source and all settings'),
  tools: { 'llama.cpp': 'v1' },
  settings: { type: 'F16' },
};
const findings: ConversionFindings = { checks: ['It is there.'], warnings: [], bitsPerWeight: 16 };

let store: string;
let made: number;

beforeEach(async () => {
  store = join(await mkdtemp(join(tmpdir(), 'weldline-store-')), 'conversions');
  made = 0;
});
afterEach(async () => await rm(join(store, '..'), { recursive: true, force: true }));

const make = async (directory: string): Promise<ConversionFindings> => {
  made++;
  await writeFile(join(directory, 'model.gguf'), 'weights');
  await writeFile(join(directory, 'another.gguf'), 'more');
  return findings;
};

describe('makeConversion', () => {
  it('writes a manifest that says what there is, and gives its digest', async () => {
    const conversion = await makeConversion(store, facts, make);
    const text = await readFile(join(conversion.directory, CONVERSION_FILE), 'utf8');
    expect(conversion.manifestDigest).toBe(sha256Of(text));
    expect(JSON.parse(text)).toEqual(conversion.manifest);
    expect(conversion.manifest).toEqual({
      format: 'weldline.conversion',
      ...facts,
      ...findings,
      files: [
        { path: 'another.gguf', size: 4, sha256: sha256Of('more') },
        { path: 'model.gguf', size: 7, sha256: sha256Of('weights') },
      ],
    });
  });

  it('keeps files whose names begin with a dot, as models have them', async () => {
    const conversion = await makeConversion(store, facts, async (directory) => {
      await writeFile(join(directory, '.tokenizer.py'), 'code');
      return make(directory);
    });
    expect(conversion.manifest.files.map(({ path }) => path)).toContain('.tokenizer.py');
    expect(await readConversion(conversion.directory)).toEqual(conversion);
  });

  it('fails where it could not read its own manifest, and is not made for ever', async () => {
    const making = makeConversion(store, facts, async (directory) => {
      await make(directory);
      return { ...findings, bitsPerWeight: Number.NaN };
    });
    await expect(making).rejects.toThrow('bitsPerWeight');
    expect(made).toBe(1);
    expect(await readdir(store)).toEqual([]);
  });

  it('makes nothing a second time', async () => {
    const first = await makeConversion(store, facts, make);
    expect(await makeConversion(store, facts, make)).toEqual(first);
    expect(made).toBe(1);
    await makeConversion(store, { ...facts, key: sha256Of('other settings') }, make);
    expect(made).toBe(2);
  });

  it.each([
    ['a changed file', 'model.gguf', 'WEIGHTS'],
    ['a shortened file', 'model.gguf', 'w'],
    ['a manifest that was cut off', CONVERSION_FILE, '{"format": "weldline.conv'],
    ['a manifest of another key', CONVERSION_FILE, '{}'],
  ])('makes it again after %s', async (_what, name, content) => {
    const { directory } = await makeConversion(store, facts, make);
    await writeFile(join(directory, name), content);
    expect(await readConversion(directory)).toBeUndefined();
    const again = await makeConversion(store, facts, make);
    expect(made).toBe(2);
    expect(await readFile(join(again.directory, 'model.gguf'), 'utf8')).toBe('weights');
  });

  it('makes it again after a file is gone', async () => {
    const { directory } = await makeConversion(store, facts, make);
    await rm(join(directory, 'another.gguf'));
    await makeConversion(store, facts, make);
    expect(made).toBe(2);
  });

  it('keeps nothing of what failed, and passes the error on', async () => {
    const failing = async (directory: string): Promise<never> => {
      await make(directory);
      throw new Error('it is broken');
    };
    await expect(makeConversion(store, facts, failing)).rejects.toThrow('it is broken');
    expect(await readdir(store)).toEqual([]);
  });

  it('removes what killed processes left, and nothing of those that run', async () => {
    const { pid } = spawnSync(process.execPath, ['--version']);
    const place = join(store, `${facts.id}-${facts.key.slice(0, 16)}`);
    const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
    const dead = `${place}.${host}-${pid}-0.partial`;
    const alive = `${place}.${host}-${process.ppid}-0.partial`;
    // Another machine's process of that number is not to be seen from here.
    const foreign = `${place}.00000000-${pid}-0.partial`;
    // This process has the number of one that was killed, as after a restart of a container.
    const namesake = `${place}.${host}-${process.pid}-9999.partial`;
    for (const directory of [dead, alive, foreign, namesake]) {
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, 'model.gguf'), 'half');
    }
    await makeConversion(store, facts, make);
    expect(
      new Set(await readdir(store).then((names) => names.map((name) => join(store, name)))),
    ).toEqual(new Set([place, alive, foreign]));
  });

  it('lets two attempts at once come to the same end', async () => {
    const [one, other] = await Promise.all([
      makeConversion(store, facts, make),
      makeConversion(store, facts, make),
    ]);
    expect(one).toEqual(other);
    expect(await readdir(store)).toHaveLength(1);
  });

  it('stops where it is told to, with the reason and without a trace', async () => {
    const controller = new AbortController();
    const stopped = makeConversion(
      store,
      facts,
      async (directory) => {
        controller.abort(new Error('cancelled'));
        return await make(directory);
      },
      controller.signal,
    );
    await expect(stopped).rejects.toThrow('cancelled');
    expect(await readdir(store)).toEqual([]);
  });

  it('says where it cannot write', async () => {
    await writeFile(join(store, '..', 'file'), '');
    await expect(makeConversion(join(store, '../file'), facts, make)).rejects.toMatchObject({
      code: 'disk.write-failed',
    });
  });
});
