import { countTypes, damaged, type GgufModel } from './gguf-model.ts';
import { ggufTensorName } from './tensor-names.ts';

/** Names → shapes, rows first. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Worked out from the configuration, not part of a checkpoint. */
const COMPUTED = /^rope_factors_|^rope_freqs/;

export interface TensorFindings {
  readonly checks: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Compares a converted file with its checkpoint: weights that all architectures call alike one by
 * one, and all of them by the number of their parameters.
 *
 * @param isTied whether the output head is the input embedding
 * @throws WeldlineError `convert.check-failed` where a weight is missing or has another shape
 */
export function compareWithCheckpoint(
  model: GgufModel,
  checkpoint: Shapes,
  isTied: boolean,
): TensorFindings {
  const [file = ''] = model.files;
  let compared = 0;
  let expected = 0;
  for (const [name, shape] of checkpoint) {
    const ggufName = ggufTensorName(name);
    const tensor = ggufName === undefined ? undefined : model.tensors.get(ggufName);
    // A head that is stored although it is the embedding, once in GGUF.
    if (ggufName === 'output.weight' && tensor === undefined && isTied) continue;
    expected += shape.reduce((product, length) => product * length, 1);
    if (ggufName === undefined) continue;
    if (tensor === undefined) throw damaged(file, `lacks ${ggufName} (${name})`);
    requireShape(file, ggufName, tensor.shape, shape);
    compared++;
  }
  const computed = [...model.tensors.values()].filter(({ name }) => COMPUTED.test(name));
  const found = computed.reduce((sum, { elements }) => sum - elements, model.parameters);
  const checks = [
    `${compared} of ${checkpoint.size} tensors of the checkpoint are there under the names that all ` +
      `architectures share, with their shapes (${countTypes(model)}).`,
  ];
  if (found === expected) {
    return {
      checks: [...checks, `It has all ${found} parameters of the checkpoint.`],
      warnings: [],
    };
  }
  const warning =
    `It has ${found} parameters and the checkpoint ${expected}: for this architecture llama.cpp ` +
    'leaves some out, or adds some.';
  return { checks, warnings: [warning] };
}

/**
 * Compares a quantized file with the file that it was made of, tensor by tensor.
 *
 * @throws WeldlineError `convert.check-failed`
 */
export function compareWithSource(model: GgufModel, source: GgufModel): TensorFindings {
  const [file = ''] = model.files;
  for (const { name, shape } of source.tensors.values()) {
    const tensor = model.tensors.get(name);
    if (tensor === undefined) throw damaged(file, `lacks ${name}`);
    requireShape(file, name, tensor.shape, shape);
  }
  const extra = [...model.tensors.keys()].find((name) => !source.tensors.has(name));
  if (extra !== undefined) throw damaged(file, `has ${extra}, which its source does not have`);
  return {
    checks: [
      `All ${model.tensors.size} tensors are there with the shapes that they had in the file it was ` +
        `made of (${countTypes(model)}).`,
    ],
    warnings: [],
  };
}

function requireShape(
  file: string,
  name: string,
  found: readonly number[],
  expected: readonly number[],
): void {
  // One-row matrices and vectors are the same to GGUF, which counts from the columns.
  const trim = (shape: readonly number[]): string => shape.join(' × ').replace(/^(1 × )+/, '');
  if (trim(found) === trim(expected)) return;
  throw damaged(
    file,
    `has ${name} with the shape [${found.join(', ')}], not [${expected.join(', ')}]`,
  );
}
