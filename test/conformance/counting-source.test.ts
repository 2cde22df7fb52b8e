import { expect, it } from 'vitest';
import { testByteSource } from './byte-source.ts';
import { countingSource } from './counting-source.ts';

testByteSource('countingSource', async (content) => ({ source: countingSource(content) }));

it('remembers the ranges', async () => {
  const source = countingSource(Buffer.from('weights'));
  await source.read(2, 3);
  await expect(source.read(6, 2)).rejects.toThrow();
  expect(source.reads).toEqual([[2, 3]]);
});
