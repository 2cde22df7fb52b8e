import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { planDigest } from '../../../engine/plan/plan.ts';
import { previewMerge } from '../../../engine/plan/plan-merge.ts';
import { sourceReferences } from '../../../engine/plan/planned-tensor.ts';
import { verifyRows } from '../../../engine/verify/verify-rows.ts';
import { openFileSource } from '../../../sources/file-source.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import {
  mergeDirectories,
  planDirectories,
  readFiles,
  writeFiles,
} from '../../doubles/merge-directories.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  alter,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const WEIGHT = 'model.layers.1.mlp.up_proj.weight';
const OPTIONS = { mergeOnto: 'dequantized' } as const;
const WEIGHTS_FILE = 'model.safetensors';

type Kind = Parameters<typeof quantizeBase>[2];

function quantizedBase(kind: Kind, shards = 1): TinyModel {
  const base = tinyBase({ shards });
  quantizeBase(base, new Random(7), kind);
  return base;
}

async function write(base: TinyModel): Promise<Record<'base' | 'adapter' | 'output', string>> {
  const root = await temporaryDirectory();
  const place = (name: string): string => join(root, name);
  await writeFiles(place('base'), baseFiles(base));
  await writeFiles(place('adapter'), adapterFiles(tinyAdapter()));
  return { base: place('base'), adapter: place('adapter'), output: place('output') };
}

test.each<Kind>(['nf4', 'nf4-double', 'int8'])(
  '%s: weights and companions in other files give the same tensors',
  async (kind) => {
    // One output file each, so that the files of the inputs are all that differs.
    const options = { ...OPTIONS, shardBytesMax: 1e9 };
    const whole = await write(quantizedBase(kind));
    await mergeDirectories({ ...whole, options });
    const spread = await write(quantizedBase(kind, 3));
    const { plan } = await mergeDirectories({ ...spread, options, threads: 2 });
    const isSpread = plan.shards[0]!.tensors.some(
      ({ from }) => new Set(sourceReferences(from).map(({ file }) => file)).size > 1,
    );
    expect(isSpread).toBe(true);
    const [a, b] = [await readFiles(whole.output), await readFiles(spread.output)];
    expect(a.get(WEIGHTS_FILE)).toEqual(b.get(WEIGHTS_FILE));
  },
);

test('a base that only speaks of bitsandbytes is merged as it is, and no longer speaks', async () => {
  const plain = await write(tinyBase());
  await mergeDirectories(plain);
  const base = tinyBase();
  base.config['quantization_config'] = { quant_method: 'bitsandbytes', load_in_4bit: true };
  const named = await write(base);
  await mergeDirectories(named);
  const [ours, expected] = [await readFiles(named.output), await readFiles(plain.output)];
  expect(ours.get(WEIGHTS_FILE)).toEqual(expected.get(WEIGHTS_FILE));
  expect(ours.get('config.json')).toEqual(expected.get('config.json'));
});

test('an early quantization_config without a method is that of bitsandbytes', async () => {
  const base = quantizedBase('int8');
  base.config['quantization_config'] = { load_in_8bit: true };
  const plan = await planDirectories(await write(base), OPTIONS);
  expect(plan.configEdits).toEqual([{ path: ['quantization_config'], value: null }]);
});

test('block maxima that are not finite are found before they are written', async () => {
  const base = quantizedBase('nf4');
  const nan = new Uint8Array(Float32Array.from({ length: 128 }, () => Number.NaN).buffer);
  alter(base, `${WEIGHT}.absmax`, { data: nan });
  const directories = await write(base);
  await expect(mergeDirectories({ ...directories, options: OPTIONS })).rejects.toMatchObject({
    code: 'merge.non-finite',
    message: expect.stringContaining(`"${WEIGHT}"`),
  });
});

test('the digest of a plan covers every byte beside the weights', async () => {
  const digest = async (change: (base: TinyModel) => void): Promise<string> => {
    const base = quantizedBase('nf4-double');
    change(base);
    return planDigest(await planDirectories(await write(base), OPTIONS));
  };
  const flipped = (suffix: string) => (base: TinyModel) => {
    const { name, data } = base.tensors.find((each) => each.name === `${WEIGHT}.${suffix}`)!;
    alter(base, name, { data: data.map((byte, index) => (index === 0 ? byte ^ 1 : byte)) });
  };
  const digests = [
    await digest(() => undefined),
    await digest(flipped('absmax')),
    await digest(flipped('nested_absmax')),
    await digest(flipped('nested_quant_map')),
  ];
  expect(new Set(digests).size).toBe(4);
  expect(await digest(() => undefined)).toBe(digests[0]);
});

test('a plan reads headers and what says how weights are packed, not the weights', async () => {
  const base = quantizedBase('nf4-double');
  // The header begins after the eight bytes of its length.
  const files = memoryFiles(
    'base',
    baseFiles(base),
    ({ path, offset, length }) => path.endsWith('.json') || offset === 8 || length <= 200,
  );
  const adapter = memoryFiles('adapter', adapterFiles(tinyAdapter()));
  await previewMerge(files.files, [{ id: 'a', files: adapter.files }], OPTIONS);
  // Length and header, and of each weight its state and its table.
  const reads = files.reads.filter(({ path }) => path === WEIGHTS_FILE);
  expect(reads).toHaveLength(2 + 2 * 14);
  expect(files.openCount()).toBe(0);
});

test.each<Kind>(['nf4', 'nf4-double', 'int8'])(
  '%s: recomputing finds a value that is not what the weight dequantises to',
  async (kind) => {
    const directories = await write(quantizedBase(kind));
    const { plan } = await mergeDirectories({ ...directories, options: OPTIONS });
    const tensor = plan.shards[0]!.tensors.find(({ name }) => name === WEIGHT)!;
    const stored = (await readFiles(directories.base)).get(WEIGHTS_FILE)!;
    const output = await open(join(directories.output, WEIGHTS_FILE), 'r+');
    const written = await openFileSource(join(directories.output, WEIGHTS_FILE));
    try {
      const verify = (): Promise<number> =>
        verifyRows(
          tensor,
          [3],
          async ({ offset: begin }, offset, length) =>
            stored.subarray(begin + offset, begin + offset + length),
          written,
        );
      expect(await verify()).toBeLessThanOrEqual(1);
      const place = tensor.offset + (3 * 64 + 5) * 2;
      const value = Buffer.alloc(2);
      await output.read(value, 0, 2, place);
      value.writeUInt16LE(value.readUInt16LE() ^ 2);
      await output.write(value, 0, 2, place);
      await expect(verify()).rejects.toMatchObject({
        code: 'verify.recomputation-mismatch',
        message: expect.stringContaining('row 3, column 5:'),
      });
    } finally {
      await output.close();
      await written.close();
    }
  },
);
