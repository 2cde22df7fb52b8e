import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BlockFormat, blockFormat } from '../../../conversion/gguf/block-formats.ts';
import type { GgufTensor } from '../../../conversion/gguf/gguf-model.ts';
import { scanBlocks } from '../../../conversion/gguf/scan-blocks.ts';

/** Numbers in `ggml_type`, and where in a block its scales are, by the structs of ggml-common.h. */
const SCALES: readonly (readonly [type: number, name: string, offsets: readonly number[]])[] = [
  [1, 'F16', [0]],
  [2, 'Q4_0', [0]],
  [3, 'Q4_1', [0, 2]],
  [6, 'Q5_0', [0]],
  [7, 'Q5_1', [0, 2]],
  [8, 'Q8_0', [0]],
  [10, 'Q2_K', [16 + 64, 16 + 64 + 2]],
  [11, 'Q3_K', [32 + 64 + 12]],
  [12, 'Q4_K', [0, 2]],
  [13, 'Q5_K', [0, 2]],
  [14, 'Q6_K', [128 + 64 + 16]],
  [16, 'IQ2_XXS', [0]],
  [17, 'IQ2_XS', [0]],
  [18, 'IQ3_XXS', [0]],
  [19, 'IQ1_S', [0]],
  [20, 'IQ4_NL', [0]],
  [21, 'IQ3_S', [0]],
  [22, 'IQ2_S', [0]],
  [23, 'IQ4_XS', [0]],
  [34, 'TQ1_0', [48 + 4]],
  [35, 'TQ2_0', [64]],
  [41, 'Q1_0', [0]],
  [42, 'Q2_0', [0]],
];

const F16_SPECIAL = { infinity: 0x7c00, 'minus infinity': 0xfc00, NaN: 0x7e01 };
const F16_LARGEST = 0x7bff;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-scan-'));
});
afterAll(async () => await rm(directory, { recursive: true }));

/** Every bit set but in the scales, which are the largest finite number. */
function finiteBlocks(format: BlockFormat, count: number, offsets: readonly number[]): Buffer {
  const content = Buffer.alloc(format.bytes * count, 0xff);
  for (let block = 0; block < count; block++) {
    for (const offset of offsets) content.writeUInt16LE(F16_LARGEST, block * format.bytes + offset);
  }
  return content;
}

function format(type: number): BlockFormat {
  const found = blockFormat(type);
  if (found === undefined) throw new RangeError(`no type ${type}`);
  return found;
}

describe('blockFormat', () => {
  it.each(SCALES)('finds what is not finite in type %i, %s', (type, name, offsets) => {
    const each = format(type);
    expect(each.name).toBe(name);
    const content = finiteBlocks(each, 5, offsets);
    expect(each.findNonFinite(content)).toBe(-1);
    for (const offset of offsets) {
      for (const value of Object.values(F16_SPECIAL)) {
        const broken = Buffer.from(content);
        broken.writeUInt16LE(value, 3 * each.bytes + offset);
        expect(each.findNonFinite(broken), `${name} at ${offset}`).toBe(3 * each.bytes);
      }
    }
  });

  it('reads the exponents of float32 and bfloat16', () => {
    const values = new Float32Array([3.4e38, -1e-45, 0, Number.NEGATIVE_INFINITY]);
    const bytes = new Uint8Array(values.buffer);
    expect(format(0).findNonFinite(bytes)).toBe(12);
    expect(format(0).findNonFinite(bytes.subarray(0, 12))).toBe(-1);
    expect(format(30).findNonFinite(Uint8Array.of(0x7f, 0x7f, 0x80, 0x7f))).toBe(2);
    expect(format(30).findNonFinite(Uint8Array.of(0x7f, 0x7f, 0x7f, 0xff))).toBe(-1);
  });

  it('puts the scale of IQ1_M together from its four parts', () => {
    const block = Buffer.alloc(56, 0xff);
    const put = (half: number): void => {
      for (const index of [0, 1, 2, 3]) {
        const nibble = (half >> (4 * index)) & 0xf;
        block[48 + 2 * index + 1] = (nibble << 4) | 0xf;
      }
    };
    put(F16_LARGEST);
    expect(format(29).findNonFinite(block)).toBe(-1);
    for (const value of Object.values(F16_SPECIAL)) {
      put(value);
      expect(format(29).findNonFinite(block)).toBe(0);
    }
  });

  it('knows the one exponent of MXFP4 that is NaN', () => {
    const blocks = Buffer.alloc(34, 0xff);
    blocks[0] = 0xfe;
    expect(format(39).findNonFinite(blocks)).toBe(17);
    expect(format(39).findNonFinite(blocks.subarray(0, 17))).toBe(-1);
  });

  it('knows no type that is not for weights', () => {
    expect([4, 5, 15, 24, 26, 28, 31, 43].map(blockFormat)).toEqual(Array(8).fill(undefined));
  });
});

describe('scanBlocks', () => {
  it('names the tensor and row, across the pieces in which a file is read', async () => {
    const each = format(14);
    const [rows, blocksPerRow] = [500, 50];
    const content = finiteBlocks(each, rows * blocksPerRow, [208]);
    const file = join(directory, 'large.gguf');
    const tensor: GgufTensor = {
      name: 'blk.0.ffn_up.weight',
      shape: [rows, blocksPerRow * 256],
      format: each,
      elements: rows * blocksPerRow * 256,
      file,
      offset: 100,
      byteLength: content.length,
    };
    const model = {
      files: [file],
      tensors: new Map([[tensor.name, tensor]]),
      bytes: content.length,
    };
    await writeFile(file, Buffer.concat([Buffer.alloc(100, 0xff), content, Buffer.alloc(9, 0xff)]));
    await scanBlocks(model);
    // The block that lies across the first 4 MiB of the tensor, with its scale behind them.
    const across = Math.floor((4 * 1024 * 1024) / each.bytes);
    content.writeUInt16LE(F16_SPECIAL.NaN, across * each.bytes + 208);
    await writeFile(file, Buffer.concat([Buffer.alloc(100), content]));
    await expect(scanBlocks(model)).rejects.toMatchObject({
      code: 'convert.check-failed',
      message: expect.stringContaining(
        `blk.0.ffn_up.weight, row ${Math.floor(across / blocksPerRow)}`,
      ),
    });
  });
});
