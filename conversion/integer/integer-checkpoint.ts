import type { IntegerConversion } from '../../config/release-quality.ts';
import { wordsOf } from '../../engine/quantization/integer-rows.ts';
import type { Checkpoint, CheckpointTensor } from '../../engine/safetensors/checkpoint.ts';
import type { Dtype } from '../../engine/safetensors/dtype.ts';
import { checkFailed } from './check-failed.ts';
import type { IntegerModule } from './integer-modules.ts';

/** The tensors that a quantised module has in place of its weight. */
export interface IntegerTensors {
  readonly packed: CheckpointTensor;
  readonly scale: CheckpointTensor;
  readonly shape: CheckpointTensor;
  /** Of asymmetric integers. */
  readonly zeros?: CheckpointTensor;
}

type Scheme = Pick<IntegerConversion, 'bits' | 'groupSize' | 'symmetric'>;

/**
 * The tensors of each module, with the dtypes and shapes that compressed-tensors gives them.
 *
 * @throws WeldlineError `convert.check-failed`
 */
export function findIntegerTensors(
  checkpoint: Checkpoint,
  modules: readonly IntegerModule[],
  scheme: Scheme,
): ReadonlyMap<string, IntegerTensors> {
  const { bits, groupSize, symmetric } = scheme;
  return new Map(
    modules.map(({ name, rows, columns }) => {
      const take = (part: string, dtypes: readonly Dtype[], ...shape: number[]) =>
        takeTensor(checkpoint, `${name}.${part}`, dtypes, shape);
      const groups = columns / groupSize;
      const found = {
        packed: take('weight_packed', ['I32'], rows, wordsOf(columns, bits)),
        scale: take('weight_scale', ['BF16', 'F16', 'F32'], rows, groups),
        shape: take('weight_shape', ['I64', 'I32'], 2),
      };
      if (symmetric) return [name, found];
      const zeros = take('weight_zero_point', ['I32'], wordsOf(rows, bits), groups);
      return [name, { ...found, zeros }];
    }),
  );
}

function takeTensor(
  { tensors }: Checkpoint,
  name: string,
  dtypes: readonly Dtype[],
  shape: readonly number[],
): CheckpointTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw checkFailed(`there is no tensor ${name}`);
  if (!dtypes.includes(tensor.dtype) || tensor.shape.join() !== shape.join()) {
    throw checkFailed(
      `${name} is ${tensor.dtype} [${tensor.shape.join(', ')}] and not ` +
        `${dtypes.join(' or ')} [${shape.join(', ')}]`,
    );
  }
  return tensor;
}
