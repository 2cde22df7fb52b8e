import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { WeldlineError } from '../../engine/errors.ts';
import { type GgufHeader, readGgufHeader } from '../../tools/gguf/read-gguf-header.ts';
import { type BlockFormat, blockFormat } from './block-formats.ts';

/** A tensor of a GGUF file. */
export interface GgufTensor {
  readonly name: string;
  /** Rows first, as in a checkpoint; GGUF itself has the columns first. */
  readonly shape: readonly number[];
  readonly format: BlockFormat;
  readonly elements: number;
  /** Path of its file. */
  readonly file: string;
  /** Bytes from the start of its file. */
  readonly offset: number;
  readonly byteLength: number;
}

/** What the headers of a GGUF model say, of all its parts. */
export interface GgufModel {
  /** The first is what programs are given to load. */
  readonly files: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Weights, whatever their type. */
  readonly parameters: number;
  readonly bytes: number;
}

/**
 * Reads the headers of the GGUF model in a directory: one file, or parts that are numbered.
 *
 * @throws WeldlineError `convert.check-failed` if there is none, one cannot be read, a tensor is
 *   there twice, has an unknown type or lies beyond the end of its file
 */
export async function readGguf(directory: string): Promise<GgufModel> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.gguf')).sort();
  if (names.length === 0) throw damaged(directory, 'holds no GGUF file');
  const tensors = new Map<string, GgufTensor>();
  let metadata: Readonly<Record<string, unknown>> = {};
  let bytes = 0;
  for (const [index, name] of names.entries()) {
    const file = join(directory, name);
    const { size } = await stat(file);
    bytes += size;
    const header = await readGgufHeader(file).catch((error: unknown) => {
      throw damaged(file, `has no readable header (${(error as Error).message})`, error);
    });
    if (index === 0) metadata = header.metadata;
    for (const info of header.tensors) {
      const tensor = describe(info, file);
      if (tensors.has(tensor.name)) throw damaged(file, `has ${tensor.name} a second time`);
      if (tensor.offset + tensor.byteLength > size) {
        throw damaged(file, `ends before ${tensor.name} does`);
      }
      tensors.set(tensor.name, tensor);
    }
  }
  const parameters = [...tensors.values()].reduce((sum, { elements }) => sum + elements, 0);
  const files = names.map((name) => join(directory, name));
  return { files, metadata, tensors, parameters, bytes };
}

function describe(info: GgufHeader['tensors'][number], file: string): GgufTensor {
  const format = blockFormat(info.type);
  const shape = info.shape.toReversed();
  const elements = shape.reduce((product, length) => product * length, 1);
  if (format === undefined || elements % format.elements !== 0) {
    throw damaged(file, `has ${info.name} of a type or shape that weldline does not know`);
  }
  const byteLength = (elements / format.elements) * format.bytes;
  return { name: info.name, shape, format, elements, file, offset: info.offset, byteLength };
}

export function damaged(file: string, problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'convert.check-failed',
    `${file} ${problem}. Nothing of this conversion is kept. Run it again; if it fails in the same ` +
      'way, llama.cpp and this model do not go together.',
    { cause },
  );
}

/** How many tensors there are of each type, the most frequent first: `19 Q4_K, 7 F32`. */
export function countTypes(model: GgufModel): string {
  const counts = new Map<string, number>();
  for (const { format } of model.tensors.values()) {
    counts.set(format.name, (counts.get(format.name) ?? 0) + 1);
  }
  return [...counts]
    .sort(([, one], [, other]) => other - one)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ');
}
