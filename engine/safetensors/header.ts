import type { ByteSource } from '../byte-source.ts';
import { type ErrorCode, WeldlineError } from '../errors.ts';
import { bitsOf, type Dtype, elementCount, isDtype } from './dtype.ts';
import { diagnoseStart, FILE_START_BYTES } from './file-start.ts';
import { type Fail, parseHeaderJson, quote } from './header-json.ts';

/** The reference implementation refuses larger headers (its `MAX_HEADER_SIZE`); so do we. */
export const HEADER_BYTES_MAX = 100_000_000;

/** A 400B mixture of experts has 36,000 tensors; ten times that is not a model. */
export const TENSORS_MAX = 400_000;

/** No tensor in use has more than 5 dimensions; the bound keeps shapes from being a way to hang. */
const DIMENSIONS_MAX = 32;

/** The longest names in use have about 120 characters; names also go into errors and patterns. */
const NAME_LENGTH_MAX = 500;

/**
 * Characters that no tensor name has: control characters, halves of surrogate pairs, and the
 * backslash. V8 13.6 can return the key "\\" of an earlier object for another escaped key, so a
 * name with a backslash is one that `JSON.parse` cannot be trusted with.
 */
const STRANGE_CHARACTER = /[\p{Cc}\p{Cs}\\]/u;

const LENGTH_PREFIX_BYTES = 8;

/** One tensor of a safetensors file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Absolute byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes; tensors without bytes stand where their offset puts them. */
  readonly tensors: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Offset of the first tensor byte: 8 + the length of the JSON. */
  readonly dataOffset: number;
}

/**
 * Reads and checks the header of a safetensors file, strictly: every byte after the header belongs
 * to exactly one tensor. Format: the "Format" section of the safetensors README, whose checks
 * (`Metadata::validate`) these follow.
 *
 * @throws WeldlineError `safetensors.*`, one code per way a file can be malformed
 */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const start = await source.read(0, Math.min(FILE_START_BYTES, source.size));
  const jsonLength = headerLength(start, source);
  const json = await source.read(LENGTH_PREFIX_BYTES, jsonLength);
  return parseHeader(json, source.size, source.name);
}

function headerLength(start: Uint8Array, source: ByteSource): number {
  const suspect = diagnoseStart(start, source.name);
  if (start.length < LENGTH_PREFIX_BYTES) {
    throw (
      suspect ??
      new WeldlineError(
        'safetensors.too-short',
        `${source.name} has ${source.size} bytes, too few for a safetensors file (the first 8 ` +
          'give the header length). Download it again.',
      )
    );
  }
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > BigInt(HEADER_BYTES_MAX)) {
    throw (
      suspect ??
      new WeldlineError(
        'safetensors.header-too-large',
        `${source.name} claims a header of ${length} bytes (the limit is ${HEADER_BYTES_MAX}). ` +
          'It is damaged or no safetensors file; download it again.',
      )
    );
  }
  if (LENGTH_PREFIX_BYTES + Number(length) > source.size) {
    throw (
      suspect ??
      new WeldlineError(
        'safetensors.header-truncated',
        `${source.name} ends inside its header (${source.size} bytes, the header needs ` +
          `${LENGTH_PREFIX_BYTES + Number(length)}). Download it again.`,
      )
    );
  }
  return Number(length);
}

/**
 * Parses the JSON part of a header.
 * @param json the header without its 8-byte length
 * @param fileSize size in bytes of the whole file, to check that tensors cover it exactly
 * @param where the file's name, for errors
 */
export function parseHeader(json: Uint8Array, fileSize: number, where: string): SafetensorsHeader {
  const fail = (code: ErrorCode, problem: string): WeldlineError =>
    new WeldlineError(code, `${where}: ${problem}`);
  const dataOffset = LENGTH_PREFIX_BYTES + json.length;
  const { root, strange } = parseHeaderJson(json, fail);
  const metadata = parseMetadata(root['__metadata__'], fail);
  const names = Object.keys(root).filter((name) => name !== '__metadata__');
  if (names.length > TENSORS_MAX) {
    throw fail(
      'safetensors.too-many-tensors',
      `the header lists ${names.length} tensors; the limit is ${TENSORS_MAX}.`,
    );
  }
  const tensors = names.map((name) => parseEntry(name, root[name], dataOffset, fail));
  if (strange !== undefined) {
    throw fail(
      'safetensors.bad-entry',
      `the header has ${JSON.stringify(strange)} in a number; numbers are written in plain digits.`,
    );
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkCover(tensors, dataOffset, fileSize, fail);
  return { tensors, metadata, dataOffset };
}

function parseMetadata(raw: unknown, fail: Fail): Record<string, string> {
  // MLX writes null for none, which the reference implementation takes as well.
  if (raw === undefined || raw === null) return {};
  const valid =
    typeof raw === 'object' &&
    raw !== null &&
    !Array.isArray(raw) &&
    Object.entries(raw).every(
      ([key, value]) => typeof value === 'string' && !/\p{Cs}/u.test(key + value),
    );
  if (!valid) {
    throw fail('safetensors.bad-metadata', '__metadata__ must map strings to strings.');
  }
  return raw as Record<string, string>;
}

function quoteShape(shape: readonly number[]): string {
  return shape.length > 8 ? `${shape.slice(0, 8).join(', ')}, …` : shape.join(', ');
}

function hasOverflow(shape: readonly number[]): boolean {
  return shape.some(
    (_extent, index) => !Number.isSafeInteger(elementCount(shape.slice(0, index + 1))),
  );
}

/** Whether weldline takes a text for the name of a tensor. */
export function isTensorName(name: string): boolean {
  return name !== '' && name.length <= NAME_LENGTH_MAX && !STRANGE_CHARACTER.test(name);
}

function isNaturalNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseEntry(name: string, raw: unknown, dataOffset: number, fail: Fail): TensorEntry {
  const label = quote(name);
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
    throw fail('safetensors.bad-entry', `tensor ${label} is not described by an object.`);
  }
  if (!isTensorName(name)) {
    throw fail(
      'safetensors.bad-name',
      `a tensor's name is empty, longer than ${NAME_LENGTH_MAX} characters, or has control ` +
        `characters, broken ones or a backslash (${label}).`,
    );
  }
  const entry = raw as Record<string, unknown>;
  const unknownKey = Object.keys(entry).find(
    (key) => key !== 'dtype' && key !== 'shape' && key !== 'data_offsets',
  );
  if (unknownKey !== undefined) {
    throw fail(
      'safetensors.bad-entry',
      `tensor ${label} has the unknown field ${quote(unknownKey)}.`,
    );
  }
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isDtype(dtype)) {
    throw fail(
      'safetensors.unknown-dtype',
      `tensor ${label} has ${dtype === undefined ? 'no dtype' : `the unknown dtype ${quote(dtype)}`}.`,
    );
  }
  if (!Array.isArray(shape) || shape.length > DIMENSIONS_MAX || !shape.every(isNaturalNumber)) {
    throw fail('safetensors.bad-shape', `tensor ${label} has no valid shape.`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isNaturalNumber)) {
    throw fail('safetensors.bad-offsets', `tensor ${label} has no valid data_offsets.`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || !Number.isSafeInteger(end + dataOffset)) {
    throw fail('safetensors.bad-offsets', `tensor ${label} ends (${end}) before it begins.`);
  }
  // A zero after an overflow must not hide it: other readers multiply from the left and refuse.
  const bits = hasOverflow(shape) ? Infinity : elementCount(shape) * bitsOf(dtype);
  if (!Number.isSafeInteger(bits) || bits !== (end - begin) * 8) {
    throw fail(
      'safetensors.size-mismatch',
      `tensor ${label} of dtype ${dtype} and shape [${quoteShape(shape)}] needs ${bits / 8} ` +
        `bytes, its offsets span ${end - begin}.`,
    );
  }
  return { name, dtype, shape, offset: dataOffset + begin, byteLength: end - begin };
}

function checkCover(
  tensors: readonly TensorEntry[],
  dataOffset: number,
  fileSize: number,
  fail: Fail,
): void {
  let position = dataOffset;
  for (const { name, offset, byteLength } of tensors) {
    if (offset < position) {
      throw fail('safetensors.overlap', `tensor ${quote(name)} overlaps the one before it.`);
    }
    if (offset > position) {
      throw fail(
        'safetensors.gap',
        `${offset - position} bytes before tensor ${quote(name)} belong to no tensor.`,
      );
    }
    position = offset + byteLength;
  }
  if (position > fileSize) {
    throw fail(
      'safetensors.truncated',
      `the file ends ${position - fileSize} bytes before its last tensor does (it has ` +
        `${fileSize} bytes, the header promises ${position}). Download it again.`,
    );
  }
  if (position < fileSize) {
    throw fail(
      'safetensors.trailing-bytes',
      `${fileSize - position} bytes after the last tensor belong to no tensor.`,
    );
  }
}
