import { type FileHandle, open, rm } from 'node:fs/promises';
import { WeldlineError } from '../../engine/errors.ts';
import { readGgufHeader } from '../../tools/gguf/read-gguf-header.ts';

/** GGUF_DEFAULT_ALIGNMENT; llama-gguf-split knows no other. */
const ALIGNMENT = 32;
/** Magic, version and the numbers of tensors and of metadata: what stands before the metadata. */
const PREFIX_BYTES = 24;
const GGUF_VERSION = 3;
const COPY_BYTES = 4 * 1024 * 1024;
/** Value types of GGUF. */
const UINT16 = 2;
const INT32 = 5;
const NUMBER_DIGITS = 5;

interface TensorRecord {
  /** Its entry in the list of tensors, up to its offset. */
  readonly entry: Uint8Array;
  /** Where its bytes are in the file. */
  readonly position: number;
  readonly paddedBytes: number;
}

/**
 * Cuts a GGUF file into parts as `llama-gguf-split --split-max-size` does, byte for byte: tensors in
 * their order, as many in each part as have room, and all metadata in the first. Programs are given
 * the first part and find the others by their names. The file itself is removed.
 *
 * @param file ends in `.gguf`; the parts go beside it as `NAME-00001-of-00003.gguf`
 * @param bytesMax of the tensors of a part; one that is larger has a part to itself
 * @returns the paths of the parts, or of the file if it is small enough
 * @throws WeldlineError `convert.check-failed` for a file whose layout llama.cpp does not split
 */
export async function splitGguf(
  file: string,
  bytesMax: number,
  signal?: AbortSignal,
): Promise<readonly string[]> {
  const source = await open(file, 'r');
  try {
    const { metadata, tensors, metadataCount } = await readRecords(file, source);
    const parts = groupTensors(tensors, bytesMax);
    if (parts.length === 1) return [file];
    const paths = parts.map((_, index) => partPath(file, index, parts.length));
    for (const [index, part] of parts.entries()) {
      const values = splitValues(index, parts.length, tensors.length);
      const head =
        index === 0
          ? partHead(part, metadataCount + values.length, [metadata, ...values])
          : partHead(part, values.length, values);
      await writePart(paths[index] ?? '', head, part, source, signal);
    }
    await rm(file);
    return paths;
  } finally {
    await source.close();
  }
}

async function readRecords(
  file: string,
  source: FileHandle,
): Promise<{
  readonly metadata: Uint8Array;
  readonly metadataCount: number;
  readonly tensors: readonly TensorRecord[];
}> {
  const { metadata: values, tensors: list, littleEndian, listRange } = await readGgufHeader(file);
  const alignment = Number(values['general.alignment'] ?? ALIGNMENT);
  if (!littleEndian || alignment !== ALIGNMENT || Number(values['version']) !== GGUF_VERSION) {
    throw new WeldlineError(
      'convert.check-failed',
      `${file} has a layout that llama.cpp does not split. Leave split out of the recipe.`,
    );
  }
  const [infoStart, infoEnd] = listRange;
  const read = async (from: number, to: number): Promise<Uint8Array> => {
    const { buffer } = await source.read(Buffer.alloc(to - from), 0, to - from, from);
    return buffer;
  };
  const infos = await read(infoStart, infoEnd);
  const end = (await source.stat()).size;
  let at = 0;
  const tensors = list.map(({ name, shape, offset }, index) => {
    const length = infoBytes(name, shape.length);
    const entry = infos.subarray(at, at + length - 8);
    at += length;
    return { entry, position: offset, paddedBytes: (list[index + 1]?.offset ?? end) - offset };
  });
  const metadata = await read(PREFIX_BYTES, infoStart);
  return { metadata, metadataCount: Number(values['kv_count']), tensors };
}

/** Name with its length, number of dimensions, dimensions, type and offset. */
function infoBytes(name: string, dimensions: number): number {
  return 8 + Buffer.byteLength(name) + 4 + 8 * dimensions + 4 + 8;
}

function groupTensors(
  tensors: readonly TensorRecord[],
  bytesMax: number,
): readonly (readonly TensorRecord[])[] {
  const parts: TensorRecord[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const tensor of tensors) {
    bytes += tensor.paddedBytes;
    if (bytes > bytesMax) {
      parts.push([]);
      bytes = tensor.paddedBytes;
    }
    parts.at(-1)?.push(tensor);
  }
  return parts;
}

/** As `llama_split_path` names them. */
function partPath(file: string, index: number, count: number): string {
  const number = (value: number): string => String(value).padStart(NUMBER_DIGITS, '0');
  return `${file.replace(/\.gguf$/, '')}-${number(index + 1)}-of-${number(count)}.gguf`;
}

/** In the order in which llama-gguf-split sets them; it sets the count twice. */
function splitValues(index: number, count: number, tensorCount: number): readonly Uint8Array[] {
  return [
    numberValue('split.no', UINT16, index),
    numberValue('split.tensors.count', INT32, tensorCount),
    numberValue('split.count', UINT16, count),
  ];
}

function numberValue(key: string, type: typeof UINT16 | typeof INT32, value: number): Uint8Array {
  const name = Buffer.from(key);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(name.length));
  const rest = Buffer.alloc(type === UINT16 ? 6 : 8);
  rest.writeUInt32LE(type);
  if (type === UINT16) rest.writeUInt16LE(value, 4);
  else rest.writeInt32LE(value, 4);
  return Buffer.concat([length, name, rest]);
}

function partHead(
  part: readonly TensorRecord[],
  metadataCount: number,
  values: readonly Uint8Array[],
): Uint8Array {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.write('GGUF');
  prefix.writeUInt32LE(GGUF_VERSION, 4);
  prefix.writeBigUInt64LE(BigInt(part.length), 8);
  prefix.writeBigUInt64LE(BigInt(metadataCount), 16);
  let offset = 0;
  const entries = part.flatMap(({ entry, paddedBytes }) => {
    const position = Buffer.alloc(8);
    position.writeBigUInt64LE(BigInt(offset));
    offset += paddedBytes;
    return [entry, position];
  });
  const head = Buffer.concat([prefix, ...values, ...entries]);
  const padding = (ALIGNMENT - (head.length % ALIGNMENT)) % ALIGNMENT;
  return Buffer.concat([head, Buffer.alloc(padding)]);
}

async function writePart(
  path: string,
  head: Uint8Array,
  part: readonly TensorRecord[],
  source: FileHandle,
  signal: AbortSignal | undefined,
): Promise<void> {
  const target = await open(path, 'wx');
  try {
    await target.write(head);
    const room = Buffer.alloc(COPY_BYTES);
    for (const { position, paddedBytes } of part) {
      for (let done = 0; done < paddedBytes; ) {
        signal?.throwIfAborted();
        const length = Math.min(COPY_BYTES, paddedBytes - done);
        const { bytesRead } = await source.read(room, 0, length, position + done);
        await target.writeFile(room.subarray(0, bytesRead));
        done += bytesRead;
      }
    }
  } finally {
    await target.close();
  }
}
