import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { BlockRotations, rotationBytes } from '../../../engine/merge/bands/block-rotations.ts';
import { InputFiles } from '../../../engine/merge/input-files.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

const BLOCKS = 3;

/** Q of each block by its upper triangle, as an adapter stores it. */
async function writeTriangles(count: number, size: number) {
  const numbers = (size * (size - 1)) / 2;
  const random = new Random(size);
  const triangles = Float32Array.from(
    { length: count * numbers },
    () => random.next() / 2 ** 32 - 0.5,
  );
  const directory = await temporaryDirectory();
  await writeFile(join(directory, 'oft.bin'), triangles);
  const { byteLength } = triangles;
  const shape = [count, numbers];
  const blocks = {
    input: 'a',
    file: 'oft.bin',
    offset: 0,
    byteLength,
    dtype: 'F32',
    shape,
  } as const;
  const at = (block: number, row: number, column: number): number => {
    if (row > column) return -at(block, column, row);
    if (row === column) return 0;
    const before = (row * (2 * size - row - 1)) / 2;
    return triangles[block * numbers + before + column - row - 1] ?? Number.NaN;
  };
  return { blocks: { ...blocks, shape: [...shape] }, files: new InputFiles({ a: directory }), at };
}

const randomRows = (count: number): Float64Array => {
  const random = new Random(9);
  return Float64Array.from({ length: count }, () => random.next() / 2 ** 32 - 0.5);
};

// Sizes around that of a panel, and rows that are no pairs.
describe.each([2, 3, 4, 5, 8, 11])('blocks of %i', (size) => {
  test.each([
    { ofOutputs: false, count: BLOCKS },
    { ofOutputs: true, count: BLOCKS },
    { ofOutputs: false, count: 1 },
  ])('y = (I − Q) (I + Q)⁻¹ x, or its transpose: %o', async ({ ofOutputs, count }) => {
    const { blocks, files, at } = await writeTriangles(count, size);
    const rotations = new BlockRotations(
      { kind: 'rotation', adapter: 'a', module: 'm', after: 0, blocks, size, ofOutputs },
      files,
    );
    files.close();
    const [rows, columns] = [5, BLOCKS * size];
    const x = randomRows(rows * columns);
    const y = x.slice();
    rotations.rotate(y, columns);
    const sign = ofOutputs ? -1 : 1;
    // (I + Q) y = (I − Q) x
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < columns; i++) {
        const [block, begin] = [Math.floor(i / size), row * columns + i - (i % size)];
        let difference = y[row * columns + i]! - x[row * columns + i]!;
        for (let k = 0; k < size; k++) {
          const q = sign * at(count === 1 ? 0 : block, i % size, k);
          difference += q * (y[begin + k]! + x[begin + k]!);
        }
        expect(Math.abs(difference)).toBeLessThan(1e-14 * size);
      }
    }
    const oneByOne = x.slice();
    for (let row = 0; row < rows; row++) {
      rotations.rotate(oneByOne.subarray(row * columns, (row + 1) * columns), columns);
    }
    expect(oneByOne).toEqual(y);
  });
});

test('the memory of blocks is declared, zeros that fill panels up included', async () => {
  const { blocks, files } = await writeTriangles(BLOCKS, 5);
  files.close();
  const change = {
    kind: 'rotation',
    adapter: 'a',
    module: 'm',
    after: 0,
    ofOutputs: false,
  } as const;
  expect(rotationBytes({ ...change, blocks, size: 5 })).toBe(8 * (BLOCKS * 8 * 5 + 4 * 25 + 2 * 5));
});
