import { decodeElements } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { TensorReference } from '../plan/plan.ts';
import { bytesOf, isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import type { InputFiles } from './input-files.ts';

/** Elements [begin, begin + count) of a small tensor, whatever its shape. */
export function readNumbers(
  files: Pick<InputFiles, 'read'>,
  tensor: TensorReference,
  begin: number,
  count: number,
): Float64Array {
  const { dtype } = tensor;
  assert(isMergeDtype(dtype), `a tensor of an adapter has dtype ${dtype}`);
  const bytes = new Uint8Array(count * bytesOf(dtype));
  files.read(tensor, begin * bytesOf(dtype), bytes);
  return decodeElements(bytes, KERNEL_DTYPE[dtype]);
}
