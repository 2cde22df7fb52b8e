import fc from 'fast-check';
import { expect, test } from 'vitest';
import { sha256Of } from '../../../engine/canonical-json.ts';
import {
  formatPlan,
  type MergeOptions,
  type Plan,
  parsePlan,
  planDigest,
} from '../../../engine/plan/plan.ts';
import { planMerge, previewMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import {
  adapterFiles,
  baseFiles,
  type FileMap,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const BASE = (): FileMap => baseFiles(tinyBase({ shards: 2 }));
const ADAPTER = (): FileMap => adapterFiles(tinyAdapter());

async function digestFor(
  base: FileMap,
  adapter: FileMap,
  options: MergeOptions = {},
  names: { base: string; adapter: string } = { base: 'base', adapter: 'adapter' },
): Promise<string> {
  const inputs = memoryFiles(names.base, base);
  const plan = await planMerge(
    inputs,
    [{ id: 'a', ...memoryFiles(names.adapter, adapter) }],
    options,
  );
  return planDigest(plan);
}

/** The same files listed in another order. */
function reordered(files: FileMap): FileMap {
  return new Map([...files].reverse());
}

test('the same inputs give the same digest, wherever they are and in whatever order', async () => {
  const once = await digestFor(BASE(), ADAPTER());
  const again = await digestFor(
    reordered(BASE()),
    reordered(ADAPTER()),
    {},
    {
      base: '/somewhere/else',
      adapter: 'hf://org/adapter',
    },
  );
  expect(again).toBe(once);
});

test('any other byte of the weights of base or adapter gives another digest', async () => {
  const once = await digestFor(BASE(), ADAPTER());
  const place = fc.record({
    file: fc.constantFrom(
      'adapter_model.safetensors',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
    ),
    // From the end, so that it is a weight and not the header; low bytes, so that it stays finite.
    fromEnd: fc.integer({ min: 1, max: 1000 }).map((value) => value * 4),
  });
  await fc.assert(
    fc.asyncProperty(place, async ({ file, fromEnd }) => {
      const base = BASE();
      const adapter = ADAPTER();
      const bytes = base.get(file) ?? adapter.get(file);
      if (bytes === undefined) throw new Error(`there is no ${file}`);
      const at = bytes.length - fromEnd;
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      expect(await digestFor(base, adapter)).not.toBe(once);
    }),
    { numRuns: 30 },
  );
});

test('other options, configurations and side files give other digests', async () => {
  const config = (files: FileMap, file: string, from: string, to: string): FileMap => {
    const text = new TextDecoder().decode(files.get(file));
    expect(text).toContain(from);
    return files.set(file, new TextEncoder().encode(text.replace(from, to)));
  };
  const license = new TextEncoder().encode('MIT');
  const digests = [
    await digestFor(BASE(), ADAPTER()),
    await digestFor(BASE(), ADAPTER(), { dtype: 'float32' }),
    await digestFor(BASE(), ADAPTER(), { dtype: 'bfloat16' }),
    await digestFor(BASE(), ADAPTER(), { shardBytesMax: 100_000 }),
    await digestFor(BASE(), ADAPTER(), { shardBytesMax: 100_001 }),
    await digestFor(
      BASE(),
      config(ADAPTER(), 'adapter_config.json', '"lora_alpha": 8', '"lora_alpha": 16'),
    ),
    await digestFor(config(BASE(), 'config.json', 'bfloat16', 'float16'), ADAPTER()),
    await digestFor(BASE().set('LICENSE', license), ADAPTER()),
  ];
  expect(new Set(digests).size).toBe(digests.length);
});

test('a preview says all that the plan says but digests, and no merge takes it for a plan', async () => {
  const base = memoryFiles('base', BASE());
  const adapter = { id: 'a', ...memoryFiles('adapter', ADAPTER()) };
  const preview = await previewMerge(base.files, [adapter], {});
  const plan = await planMerge(base, [adapter], {});
  expect(plan).toMatchObject(preview);
  expect(JSON.stringify(preview)).not.toContain('sha256');
  // @ts-expect-error: the compiler refuses it where a plan is wanted.
  const asPlan: Plan = preview;
  const text = formatPlan(asPlan);
  expect(() => parsePlan(text, sha256Of(text), 'plan.json')).toThrow(
    expect.objectContaining({ code: 'plan.invalid' }),
  );
});
