import { join } from 'node:path';
import { expect, test } from 'vitest';
import { bandArenas, bandRows } from '../../../engine/merge/arena-sizes.ts';
import { DenseDeltas } from '../../../engine/merge/bands/dense-deltas.ts';
import { InputFiles } from '../../../engine/merge/input-files.ts';
import { matrixOf } from '../../../engine/merge/tensor-work.ts';
import type { PlannedDelta, PlannedTensor } from '../../../engine/plan/plan.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
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

const EMBEDDING = 'model.embed_tokens';
const BIAS = 'model.layers.1.self_attn.q_proj.bias';

/** A model with a delta on a weight stored [out, in], on an embedding and on a bias. */
async function writeModel(dtype: FloatName) {
  const root = await temporaryDirectory();
  const base = tinyBase();
  const random = new Random(5);
  for (const name of [BIAS, BIAS.replace('1', '0')]) {
    base.tensors.push(randomTensor(random, name, 'BF16', [64]));
  }
  const adapter = tinyAdapter({ dtype, rank: 5, targets: ['self_attn.q_proj'] });
  adapter.config['lora_bias'] = true;
  for (const { name } of adapter.tensors.filter((each) => each.name.includes('lora_B'))) {
    adapter.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), dtype, [64]));
  }
  const stem = `base_model.model.${EMBEDDING}.lora_embedding_`;
  const other = tinyAdapter({ dtype, rank: 5, targets: ['mlp.down_proj'] });
  other.tensors.push(randomTensor(random, `${stem}A`, dtype, [5, 100]));
  other.tensors.push(randomTensor(random, `${stem}B`, dtype, [64, 5]));
  const others = { b: join(root, 'other') };
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter'), others };
  await writeFiles(inputs.base, baseFiles(base));
  await writeFiles(inputs.adapter, adapterFiles(adapter));
  await writeFiles(others.b, adapterFiles(other));
  const plan = await planDirectories(inputs, { combination: { method: 'linear' } });
  const data = new Map(
    [...adapter.tensors, ...other.tensors].map(({ name, data }) => [
      name.replace('base_model.model.', ''),
      decodeTensor(data, dtype),
    ]),
  );
  return { inputs, plan, data };
}

/** The delta's element in float64, from B [out, 5] and A [5, in] as the file has them. */
function product(a: Float64Array, b: Float64Array, inputs: number, out: number, into: number) {
  let sum = 0;
  for (let k = 0; k < 5; k++) sum += (b[out * 5 + k] ?? 0) * (a[k * inputs + into] ?? 0);
  return sum;
}

test.each<FloatName>(['F32', 'BF16', 'F16'])(
  'each element of a delta in %s is the float64 sum, rounded once',
  async (dtype) => {
    const { inputs, plan, data } = await writeModel(dtype);
    const module = await compileKernel();
    const files = new InputFiles({ base: inputs.base, a: inputs.adapter, ...inputs.others });
    const tensors = plan.shards.flatMap((shard) => shard.tensors);
    const find = (name: string): PlannedTensor & { deltas: [PlannedDelta] } => {
      const tensor = tensors.find((each) => each.name === name);
      if (tensor?.deltas === undefined) throw new Error(`${name} has no delta`);
      return tensor as PlannedTensor & { deltas: [PlannedDelta] };
    };
    const query = find(BIAS.replace('bias', 'weight'));
    const embedding = find(`${EMBEDDING}.weight`);
    const bias = find(BIAS);
    const { sums } = bandArenas([query, embedding, bias]) ?? {};
    if (sums === undefined) throw new Error('there is no arena');
    const dense = new DenseDeltas(module, { ...sums, outputBytesMax: 0 }, files);
    const values = new Map<string, Float32Array>();
    // Two slots in turn, and bands that end within a panel of four rows.
    for (const tensor of [query, embedding, query, bias]) {
      const { rows, columns } = matrixOf(tensor);
      const step = Math.min(7, bandRows(tensor));
      const made = new Float32Array(rows * columns);
      for (let begin = 0; begin < rows; begin += step) {
        const band = { begin, rows: Math.min(step, rows - begin), columns };
        const slot = tensor === embedding ? 1 : 0;
        const rowsMade = dense.rows(slot, tensor.deltas[0], band);
        expect(rowsMade.nonFinite).toBe(0);
        made.set(rowsMade.values, begin * columns);
      }
      values.set(tensor.name, made);
    }
    files.close();
    const factor = (name: string) => data.get(name) ?? new Float64Array();
    const stem = query.name.replace('.weight', '');
    const [a, b] = [factor(`${stem}.lora_A.weight`), factor(`${stem}.lora_B.weight`)];
    const [ea, eb] = ['A', 'B'].map((each) => factor(`${EMBEDDING}.lora_embedding_${each}`));
    const scaling = 2;
    expect(values.get(query.name)).toEqual(
      Float32Array.from(
        { length: 64 * 64 },
        (_, i) => scaling * product(a, b, 64, Math.floor(i / 64), i % 64),
      ),
    );
    expect(values.get(embedding.name)).toEqual(
      Float32Array.from(
        { length: 100 * 64 },
        // Stored [tokens, hidden]: token t of A, element h of B.
        (_, i) => scaling * product(ea ?? a, eb ?? b, 100, i % 64, Math.floor(i / 64)),
      ),
    );
    const trained = factor(`${stem}.lora_B.bias`);
    expect(values.get(bias.name)).toEqual(Float32Array.from(trained, (value) => scaling * value));
  },
);
