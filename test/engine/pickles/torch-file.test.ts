import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { WeldlineError } from '../../../engine/errors.ts';
import { readTorchFile } from '../../../engine/pickles/torch-file.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { Random } from '../../doubles/random.ts';

const PICKLES = new URL('../../golden/formats/pickles/', import.meta.url);
const PLAIN = readFileSync(fileURLToPath(new URL('plain.bin', PICKLES)));

async function read(content: Uint8Array) {
  const { files } = memoryFiles('adapter', new Map([['adapter_model.bin', content]]));
  return readTorchFile(await files.open('adapter_model.bin'));
}

async function codeOf(content: Uint8Array): Promise<string> {
  const error: unknown = await read(content).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return 'read';
  if (!(error instanceof WeldlineError)) throw error;
  return `${error.code}: ${error.message}`;
}

/** A copy in which bytes at a place are others. */
function withBytes(at: number, ...bytes: number[]): Uint8Array {
  const copy = Uint8Array.from(PLAIN);
  copy.set(bytes, at);
  return copy;
}

const END = PLAIN.length - 22;
const DIRECTORY = PLAIN.readUInt32LE(END + 16);
/** Where the directory speaks of data/0 and of data/1. */
const [FIRST = 0, SECOND = 0] = ['plain/data/0', 'plain/data/1'].map(
  (name) => PLAIN.indexOf(name, DIRECTORY) - 46,
);

/** The archive with another data.pkl, which may only be shorter. */
function withPickle(...opcodes: number[]): Uint8Array {
  const begin = PLAIN.indexOf(Buffer.from([0x80, 2]));
  const copy = Uint8Array.from(PLAIN);
  copy.set(opcodes, begin);
  return copy;
}

const text = (value: string): number[] => [...Buffer.from(value)];
const unicode = (value: string): number[] => [0x58, value.length, 0, 0, 0, ...text(value)];

describe('an archive', () => {
  test.each([
    ['cut off', 'end is missing', PLAIN.subarray(0, -1)],
    ['of no bytes', 'end is missing', new Uint8Array()],
    ['with bytes behind it', 'end is missing', Buffer.concat([PLAIN, Buffer.from('x')])],
    ['in parts', 'one part of several', withBytes(END + 4, 1)],
    ['with 64-bit sizes', '64-bit', withBytes(END + 16, 0xff, 0xff, 0xff, 0xff)],
    ['whose directory is elsewhere', 'outside', withBytes(END + 18, 0xff)],
    ['whose directory is cut off', 'not what its end says', withBytes(END + 8, 11, 0, 11, 0)],
    ['that compresses', 'compressed', withBytes(FIRST + 10, 8)],
    ['that is smaller than it says', 'compressed', withBytes(FIRST + 20, 1)],
    ['that is encrypted', 'encrypted', withBytes(FIRST + 8, 1)],
    ['with a member of 64-bit size', '64-bit', withBytes(FIRST + 42, 0xff, 0xff, 0xff, 0xff)],
    [
      'with two names for a member',
      'two names',
      withBytes(FIRST + 42, ...PLAIN.subarray(SECOND + 42, SECOND + 46)),
    ],
    ['with a name twice', 'twice', withBytes(SECOND + 46 + 11, 0x30)],
    [
      'whose member goes on into the next',
      'overlaps',
      withBytes(FIRST + 20, 0, 8, 0, 0, 0, 8, 0, 0),
    ],
    [
      'whose member goes on to the moon',
      'outside of the archive',
      withBytes(FIRST + 20, 0, 0, 0, 0x70, 0, 0, 0, 0x70),
    ],
  ])('%s', async (_what, says, content) => {
    expect(await codeOf(content)).toMatch(new RegExp(`^adapter\\.pickle(-damaged)?: .*${says}`));
  });

  test('with a comment is read', async () => {
    const copy = Buffer.concat([PLAIN, Buffer.from('hello')]);
    copy.writeUInt16LE(5, END + 20);
    expect(await read(copy)).toEqual(await read(PLAIN));
  });
});

describe('a pickle', () => {
  test.each([
    ['that takes what is not there', 'not there', [0x80, 2, 0x52]],
    ['that recalls what was not remembered', 'remembered', [0x80, 2, 0x68, 9]],
    ['with an opcode of objects', 'opcode 0x81', [0x80, 2, 0x29, 0x81]],
    ['with an opcode of extensions', 'opcode 0x82', [0x80, 2, 0x82, 1]],
    ['of another protocol', 'protocol 5', [0x80, 5]],
    ['with two results', 'in the middle', [0x80, 2, 0x7d, 0x7d, 0x2e]],
    ['of a number', 'no dictionary', [0x80, 2, 0x4b, 7, 0x2e]],
    ['with a name without end', 'name without end', [0x80, 2, 0x63, ...Array(300).fill(0x61)]],
    ['with text past its end', 'too early', [0x80, 2, 0x58, 0xff, 0xff, 0xff, 0x7f]],
    ['with text that is none', 'UTF-8', [0x80, 2, 0x58, 1, 0, 0, 0, 0xff]],
    [
      'with a backslash in a name',
      'no name of a tensor',
      [0x80, 2, 0x7d, ...unicode('a\\b'), 0x4e, 0x73, 0x2e],
    ],
    [
      'that calls a storage',
      'torch.save does not',
      [0x80, 2, 0x63, ...text('torch\nFloatStorage\n'), 0x29, 0x52, 0x2e],
    ],
    ['that gives a state to a list', 'a state', [0x80, 2, 0x5d, 0x7d, 0x62, 0x2e]],
    ['with a persistent id that is none', 'no storage', [0x80, 2, 0x29, 0x51, 0x2e]],
    [
      'with a tensor of nothing',
      'a tensor',
      [0x80, 2, 0x63, ...text('torch._utils\n_rebuild_tensor_v2\n'), 0x29, 0x52, 0x2e],
    ],
  ])('%s', async (_what, says, opcodes) => {
    const answer = await codeOf(withPickle(...opcodes));
    expect(answer).toMatch(/^adapter\.pickle(-damaged)?: /);
    expect(answer).toContain(says);
  });

  test.each([
    'os\nsystem',
    'builtins\neval',
    '__builtin__\ngetattr',
    'torch.hub\nload',
    'torch\nload',
  ])('that names %j', async (name) => {
    const opcodes = [0x80, 2, 0x63, ...text(`${name}\n`), ...unicode('x'), 0x85, 0x52, 0x2e];
    const answer = await codeOf(withPickle(...opcodes));
    expect(answer).toMatch(/^adapter\.pickle-unsafe: /);
    expect(answer).toContain(`"${name.replace('\n', '.')}"`);
  });
});

test('a Git LFS pointer is called one', async () => {
  const pointer = Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n');
  expect(await codeOf(pointer)).toMatch(/^safetensors\.git-lfs-pointer: .*git lfs pull/);
});

test('a file that was cut anywhere is refused', async () => {
  for (let length = 0; length < PLAIN.length; length += 7) {
    expect(await codeOf(PLAIN.subarray(0, length))).not.toBe('read');
  }
});

test('whatever bytes change, tensors are in the file or it is refused by name', async () => {
  const random = new Random(31);
  let refused = 0;
  const rounds = 4000;
  for (let round = 0; round < rounds; round++) {
    const copy = Uint8Array.from(PLAIN);
    const changes = 1 + random.below(3);
    for (let i = 0; i < changes; i++) {
      // The tensors themselves may be anything: the pickle, headers and the directory are spoilt.
      const at = random.below(2) === 0 ? random.below(720) : DIRECTORY + random.below(698);
      copy[at] = random.below(256);
    }
    const answer = await codeOf(copy);
    if (answer !== 'read') {
      refused++;
      expect(answer).toMatch(/^(adapter\.(pickle|pickle-unsafe|pickle-damaged)|safetensors\.)/);
      continue;
    }
    for (const { offset, byteLength, shape, dtype } of await read(copy)) {
      expect(offset >= 0 && offset + byteLength <= DIRECTORY).toBe(true);
      const width =
        dtype === 'F32' || dtype === 'I32' ? 4 : dtype === 'BF16' || dtype === 'F16' ? 2 : 0;
      if (width > 0) expect(shape.reduce((a, b) => a * b, width)).toBe(byteLength);
    }
  }
  expect(refused).toBeGreaterThan(rounds / 4);
});
