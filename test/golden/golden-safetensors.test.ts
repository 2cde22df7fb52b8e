import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parseHeader } from '../../engine/safetensors/header.ts';
import { frame } from '../doubles/write-safetensors.ts';

const FOLDER = fileURLToPath(new URL('./safetensors', import.meta.url));

interface ExpectedFile {
  readonly metadata: Record<string, string> | null;
  readonly tensors: Record<string, { dtype: string; shape: number[]; sha256: string }>;
}

const expected = JSON.parse(readFileSync(join(FOLDER, 'expected.json'), 'utf8')) as Record<
  string,
  ExpectedFile
>;

function describeFile(bytes: Uint8Array, where: string): ExpectedFile {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = parseHeader(bytes.subarray(8, 8 + length), bytes.length, where);
  const tensors = header.tensors.map(({ name, dtype, shape, offset, byteLength }) => {
    const content = bytes.subarray(offset, offset + byteLength);
    const sha256 = createHash('sha256').update(content).digest('hex');
    return [name, { dtype, shape: [...shape], sha256 }];
  });
  return { metadata: header.metadata, tensors: Object.fromEntries(tensors) };
}

const strange = 'names.safetensors';

test.each(Object.keys(expected).filter((file) => file !== strange))('%s', (file) => {
  const { metadata, tensors } = expected[file] as ExpectedFile;
  const found = describeFile(readFileSync(join(FOLDER, file)), file);
  expect(found).toEqual({ metadata: metadata ?? {}, tensors });
});

test('names that no model has are refused, all others are kept', () => {
  const bytes = readFileSync(join(FOLDER, strange));
  expect(() => describeFile(bytes, strange)).toThrow(/names\.safetensors: .*name is empty/);

  // The empty name, and those with a tab and a line break or a backslash, get others.
  const length = Number(bytes.readBigUInt64LE(0));
  const header = bytes
    .subarray(8, 8 + length)
    .toString('utf8')
    .replace('"":{', '"was empty":{')
    .replace('"tab\\tand\\nnewline":{', '"tab and newline":{')
    .replace('and \\\\ backslash":{', 'and backslash":{');
  const found = describeFile(frame(header, bytes.subarray(8 + length)), strange);
  const { metadata, tensors } = expected[strange] as ExpectedFile;
  const { '': empty, 'tab\tand\nnewline': controls, ...more } = tensors;
  const { 'quote " and \\ backslash': quote, ...others } = more;
  expect(found.metadata).toEqual(metadata);
  const renamed = {
    'was empty': empty,
    'tab and newline': controls,
    'quote " and backslash': quote,
  };
  expect(found.tensors).toEqual({ ...others, ...renamed });
  expect(Object.keys(found.tensors)).toContain('__proto__');
});
