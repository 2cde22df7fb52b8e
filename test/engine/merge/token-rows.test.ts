import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PAGE_BYTES } from '../../../engine/merge/windows.ts';
import { KERNEL_DTYPE } from '../../../engine/safetensors/dtype.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { castElements } from '../../../kernels/index.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type FloatName,
  randomTensor,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const DTYPES: readonly FloatName[] = ['BF16', 'F16', 'F32'];
const ROWS = 'base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta';
const TORCH_NAMES = { BF16: 'bfloat16', F16: 'float16', F32: 'float32' } as const;

const merges = fc.record({
  base: fc.constantFrom(...DTYPES),
  rows: fc.constantFrom(...DTYPES),
  output: fc.option(fc.constantFrom(...DTYPES), { nil: undefined }),
  indices: fc.uniqueArray(fc.integer({ min: 0, max: 99 }), { minLength: 1, maxLength: 12 }),
  pages: fc.integer({ min: 1, max: 3 }),
});

test('trained rows are the adapter’s, all others the base’s, wherever windows end', async () => {
  const root = await temporaryDirectory();
  let run = 0;
  await fc.assert(
    fc.asyncProperty(merges, async ({ base: dtype, rows, output, indices, pages }) => {
      const directory = join(root, String(run++));
      await mkdir(directory);
      const paths = { base: join(directory, 'base'), adapter: join(directory, 'adapter') };
      const base = tinyBase({ dtype });
      const adapter = tinyAdapter();
      adapter.config['trainable_token_indices'] = indices;
      const trained = randomTensor(new Random(run), ROWS, rows, [indices.length, 64]);
      adapter.tensors.push(trained);
      await writeFiles(paths.base, baseFiles(base));
      await writeFiles(paths.adapter, adapterFiles(adapter));
      const merged = join(directory, 'merged');
      const { plan } = await mergeDirectories({
        ...paths,
        output: merged,
        options: output === undefined ? {} : { dtype: TORCH_NAMES[output] },
        windowBytes: pages * PAGE_BYTES,
        threads: 2,
      });
      const files = await openModelDirectory(merged);
      const roots = { base: paths.base, a: paths.adapter };
      await verifyMerge({ directory: merged, files, recompute: { plan, roots } });

      const [shard] = plan.shards;
      const planned = shard?.tensors.find(({ name }) => name === 'model.embed_tokens.weight');
      const bytes = await readFile(join(merged, 'model.safetensors'));
      const before = base.tensors[0]?.data ?? new Uint8Array();
      const to = KERNEL_DTYPE[output ?? dtype];
      const length = (planned?.byteLength ?? 0) / 100;
      for (let row = 0; row < 100; row++) {
        const place = indices.indexOf(row);
        const [source, from, at] = place < 0 ? [before, dtype, row] : [trained.data, rows, place];
        const size = 64 * (from === 'F32' ? 4 : 2);
        const stored = source.subarray(at * size, (at + 1) * size);
        const begin = (planned?.offset ?? 0) + row * length;
        expect(
          bytes
            .subarray(begin, begin + length)
            .equals(castElements(stored, KERNEL_DTYPE[from], to).bytes),
          `row ${row}`,
        ).toBe(true);
      }
    }),
    { numRuns: 10 },
  );
});

test('a trained row that float16 cannot hold is an error', async () => {
  const root = await temporaryDirectory();
  const paths = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const adapter = tinyAdapter();
  adapter.config['trainable_token_indices'] = [5];
  const data = new Uint8Array(Float32Array.from({ length: 64 }, () => 1e5).buffer);
  adapter.tensors.push({ name: ROWS, dtype: 'F32', shape: [1, 64], data });
  await writeFiles(paths.base, baseFiles(tinyBase({ dtype: 'F16' })));
  await writeFiles(paths.adapter, adapterFiles(adapter));
  await expect(mergeDirectories({ ...paths, output: join(root, 'merged') })).rejects.toMatchObject({
    code: 'merge.non-finite',
    message: expect.stringMatching(/embed_tokens.*64 values.*row 5/),
  });
});

test('a trained row that was not written is found', async () => {
  const root = await temporaryDirectory();
  const paths = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const adapter = tinyAdapter();
  adapter.config['trainable_token_indices'] = [41, 40];
  adapter.tensors.push(randomTensor(new Random(3), ROWS, 'F32', [2, 64]));
  await writeFiles(paths.base, baseFiles(tinyBase()));
  await writeFiles(paths.adapter, adapterFiles(adapter));
  const output = join(root, 'merged');
  const { plan } = await mergeDirectories({ ...paths, output });
  // A plan in which the rows are the other way round is not what was merged.
  const swapped = structuredClone(plan);
  for (const { tensors } of swapped.shards)
    for (const { tokens } of tensors) tokens?.[0]?.indices.reverse();
  const verify = async (plan: typeof swapped): Promise<unknown> =>
    verifyMerge({
      directory: output,
      files: await openModelDirectory(output),
      recompute: { plan, roots: { base: paths.base, a: paths.adapter } },
    });
  await expect(verify(swapped)).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
  await verify(plan);
});

test.each([false, true])('several adapters train rows of their own (tied: %s)', async (tied) => {
  const root = await temporaryDirectory();
  const paths = { base: join(root, 'base'), adapter: join(root, 'one') };
  const others = { b: join(root, 'two') };
  const rows = [
    [8, 3],
    [99, 0, 40],
  ];
  const base = tinyBase({ dtype: 'F32', tied });
  const trained = rows.map((indices, index) => {
    const adapter = tinyAdapter({ seed: index + 2 });
    adapter.config['trainable_token_indices'] = indices;
    const tensor = randomTensor(new Random(index), ROWS, 'F32', [indices.length, 64]);
    adapter.tensors.push(tensor);
    return { adapter, tensor };
  });
  await writeFiles(paths.base, baseFiles(base));
  await writeFiles(paths.adapter, adapterFiles(trained[0]!.adapter));
  await writeFiles(others.b, adapterFiles(trained[1]!.adapter));
  const output = join(root, 'merged');
  const options = { combination: { method: 'linear' } } as const;
  const { plan } = await mergeDirectories({ ...paths, others, output, options });
  const written = await loadTensors(output, ['model.safetensors']);
  const { bytes } = written.get('model.embed_tokens.weight')!;
  const before = base.tensors[0]?.data ?? new Uint8Array();
  for (let row = 0; row < 100; row++) {
    const index = rows.findIndex((indices) => indices.includes(row));
    const [data, at] =
      index < 0 ? [before, row] : [trained[index]!.tensor.data, rows[index]!.indexOf(row)];
    const is = Buffer.from(bytes.subarray(row * 256, (row + 1) * 256));
    expect(is.equals(data.subarray(at * 256, (at + 1) * 256)), `row ${row}`).toBe(true);
  }
  expect(written.has('lm_head.weight')).toBe(!tied);
  expect(plan.configEdits).toEqual([]);

  const roots = { base: paths.base, a: paths.adapter, ...others };
  const verify = async (what: typeof plan): Promise<unknown> => {
    const files = await openModelDirectory(output);
    return verifyMerge({ directory: output, files, recompute: { plan: what, roots } });
  };
  await verify(plan);
  // Rows of the second adapter that went elsewhere are found too.
  const moved = structuredClone(plan);
  for (const { tensors } of moved.shards)
    for (const { tokens } of tensors) tokens?.[1]?.indices.reverse();
  await expect(verify(moved)).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
});
