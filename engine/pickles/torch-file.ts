import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import { bitsOf, type Dtype, elementCount } from '../safetensors/dtype.ts';
import { diagnoseStart, FILE_START_BYTES } from '../safetensors/file-start.ts';
import { isTensorName, TENSORS_MAX, type TensorEntry } from '../safetensors/header.ts';
import { type PickledTensor, type PickledValue, PickleProblem } from './pickled-value.ts';
import { unpickle } from './unpickle.ts';
import { readZipMembers, type ZipMember, ZipProblem } from './zip-members.ts';

const DTYPES: ReadonlyMap<string, Dtype> = new Map([
  ['FloatStorage', 'F32'],
  ['HalfStorage', 'F16'],
  ['BFloat16Storage', 'BF16'],
  ['DoubleStorage', 'F64'],
  ['LongStorage', 'I64'],
  ['IntStorage', 'I32'],
  ['ShortStorage', 'I16'],
  ['CharStorage', 'I8'],
  ['ByteStorage', 'U8'],
  ['BoolStorage', 'BOOL'],
]);

/** The pickle has names and shapes, about 300 bytes for each tensor. */
const PICKLE_BYTES_MAX = 64 * 1024 * 1024;

/** As in safetensors. */
const DIMENSIONS_MAX = 32;

/** The way out that works for every file, on a machine where running its code does no harm. */
const CONVERT =
  'Load the adapter with PEFT on a machine you can spare, and save it with ' +
  'save_pretrained(safe_serialization=True).';

/**
 * Reads where the tensors of a file that `torch.save` wrote are, without running anything of it:
 * contiguous tensors of stored members are byte ranges of the file, as those of safetensors are.
 *
 * @returns in the order of the file
 * @throws WeldlineError `adapter.pickle` for what only PyTorch can read, `adapter.pickle-unsafe` for
 *   code in the file, `adapter.pickle-damaged`, `safetensors.git-lfs-pointer`
 */
export async function readTorchFile(source: ByteSource): Promise<readonly TensorEntry[]> {
  try {
    return await readTensors(source);
  } catch (error) {
    if (error instanceof ZipProblem || error instanceof PickleProblem) throw refuse(source, error);
    throw error;
  }
}

async function readTensors(source: ByteSource): Promise<readonly TensorEntry[]> {
  const start = await source.read(0, Math.min(FILE_START_BYTES, source.size));
  const diagnosis = diagnoseStart(start, source.name);
  if (diagnosis?.code === 'safetensors.git-lfs-pointer') throw diagnosis;
  if (start[0] === 0x80) {
    throw new PickleProblem('unsupported', 'it is a bare pickle, as PyTorch wrote before 1.6');
  }
  const members = await readZipMembers(source);
  const pickles = [...members.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (pickle === undefined || pickles.length > 1) {
    throw new ZipProblem('damaged', 'it is an archive, but not one of torch.save');
  }
  const root = pickle.slice(0, -'data.pkl'.length);
  await checkByteOrder(source, members.get(`${root}byteorder`));
  const { offset, size } = members.get(pickle) as ZipMember;
  if (size > PICKLE_BYTES_MAX) {
    throw new PickleProblem('unsupported', `${pickle} has ${size} bytes, too many for names`);
  }
  const entries = dictionaryOf(unpickle(await source.read(offset, size)));
  return entries
    .map(([name, tensor]) => entryOf(name, tensor, members, root))
    .sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
}

/** Written since PyTorch 2.0; before that, files are in the order of the machine: little-endian. */
async function checkByteOrder(source: ByteSource, member: ZipMember | undefined): Promise<void> {
  if (member === undefined) return;
  const text = await source.read(member.offset, Math.min(member.size, 6));
  if (new TextDecoder('latin1').decode(text) === 'little') return;
  throw new ZipProblem('unsupported', 'its numbers are not little-endian');
}

function dictionaryOf(value: PickledValue): [string, PickledTensor][] {
  if (typeof value !== 'object' || value?.kind !== 'dictionary') {
    throw new PickleProblem('unsupported', 'it holds no dictionary of tensors');
  }
  if (value.entries.length > TENSORS_MAX) {
    throw new PickleProblem('unsupported', `it has more than ${TENSORS_MAX} tensors`);
  }
  const names = new Set<string>();
  return value.entries.map(([name, tensor]) => {
    if (typeof name !== 'string' || !isTensorName(name)) {
      throw new PickleProblem('unsupported', 'it has an entry whose name is no name of a tensor');
    }
    if (typeof tensor !== 'object' || tensor?.kind !== 'tensor') {
      throw new PickleProblem('unsupported', `its entry ${JSON.stringify(name)} is no tensor`);
    }
    if (names.has(name)) throw new PickleProblem('damaged', `it has ${JSON.stringify(name)} twice`);
    names.add(name);
    return [name, tensor];
  });
}

function entryOf(
  name: string,
  { storage, offset, shape, strides }: PickledTensor,
  members: ReadonlyMap<string, ZipMember>,
  root: string,
): TensorEntry {
  const label = `tensor ${JSON.stringify(name)}`;
  const dtype = DTYPES.get(storage.type);
  if (dtype === undefined) {
    throw new PickleProblem('unsupported', `${label} is in a ${storage.type}, which is not read`);
  }
  const bytes = bitsOf(dtype) / 8;
  const member = members.get(`${root}data/${storage.key}`);
  if (member === undefined || storage.elements * bytes !== member.size) {
    throw new PickleProblem('damaged', `the storage of ${label} is not in the archive`);
  }
  if (shape.length > DIMENSIONS_MAX || !isContiguous(shape, strides)) {
    throw new PickleProblem('unsupported', `${label} is a view that is not contiguous`);
  }
  const end = offset + elementCount(shape);
  if (!(end <= storage.elements)) {
    throw new PickleProblem('damaged', `${label} ends outside of its storage`);
  }
  return {
    name,
    dtype,
    shape,
    offset: member.offset + offset * bytes,
    byteLength: elementCount(shape) * bytes,
  };
}

/** Whether elements lie in the order of rows. The stride of an extent of 1 means nothing. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.length !== strides.length) return false;
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

function refuse(
  { name }: ByteSource,
  { kind, message }: ZipProblem | PickleProblem,
): WeldlineError {
  if (kind === 'unsafe') {
    return new WeldlineError(
      'adapter.pickle-unsafe',
      `${name} is a PyTorch pickle with code in it: ${message} that tensors need. Nothing of it was ` +
        'run. Ask its author for safetensors; do not load it.',
    );
  }
  if (kind === 'damaged') {
    return new WeldlineError(
      'adapter.pickle-damaged',
      `${name} is a damaged PyTorch pickle: ${message}. Download it again.`,
    );
  }
  return new WeldlineError(
    'adapter.pickle',
    `${name} is a PyTorch pickle that weldline, which runs nothing of it, cannot read: ${message}. ` +
      CONVERT,
  );
}
