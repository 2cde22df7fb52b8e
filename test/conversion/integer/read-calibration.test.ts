/** Calibration data in all its forms, and each way to be none. */
import { createHash } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readCalibration } from '../../../conversion/integer/read-calibration.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(await temporaryDirectory(), name);
  await writeFile(path, content);
  return path;
}

const lines = (...values: unknown[]): string =>
  values.map((value) => JSON.stringify(value)).join('\n');

test('lines of every kind become what the model sees', async () => {
  const user = { role: 'user', content: 'Hi' };
  const content = lines(
    { text: 'One.', id: 7 },
    { prompt: 'Q: 1+1 =', expected: ' [2]' },
    { prompt: 'Q: 1+2 =', expected: [' [3]', ' three'] },
    { prompt: 'a', completion: 'b' },
    { messages: [user, { role: 'assistant', content: 'Hello', name: 'x' }] },
    { messages: [user], expected: 'Hello' },
  );
  const path = await write('data.jsonl', `\ufeff${content}\r\n\r\n`);
  const { samples, firstChatLine, digest } = await readCalibration(path);
  const messages = [user, { role: 'assistant', content: 'Hello' }];
  expect(samples).toEqual([
    { line: 1, text: 'One.' },
    { line: 2, text: 'Q: 1+1 = [2]' },
    { line: 3, text: 'Q: 1+2 = [3]' },
    { line: 4, text: 'ab' },
    { line: 5, messages },
    { line: 6, messages },
  ]);
  expect(firstChatLine).toBe(5);
  expect(digest).toBe(createHash('sha256').update(`\ufeff${content}\r\n\r\n`).digest('hex'));
});

test('any other file is one text', async () => {
  const path = await write('notes.txt', '{"text": "no JSON Lines"}\nmore\n');
  const { samples, firstChatLine } = await readCalibration(path);
  expect(samples).toEqual([{ line: 1, stretch: '{"text": "no JSON Lines"}\nmore\n' }]);
  expect(firstChatLine).toBeUndefined();
});

describe('refuses', () => {
  test.each<[what: string, name: string, content: string | Uint8Array, message: RegExp]>([
    [
      'a line that is cut off',
      'a.jsonl',
      '{"text": "a"}\n\n{"text": ',
      /a\.jsonl:3 is not JSON \(\{"text": \)/,
    ],
    ['a list', 'a.json', '[\n{"text": "a"}]', /a\.json:1 is not JSON/],
    ['a list in a line', 'a.json', '[1]', /a\.json:1 is none of/],
    [
      'another key',
      'a.jsonl',
      '{"content": "a"}',
      /a\.jsonl:1 is none of .*\(\{"content": "a"\}\)/,
    ],
    ['a number for text', 'a.jsonl', '{"text": 5}', /a\.jsonl:1/],
    ['no text', 'a.jsonl', '{"text": ""}', /a\.jsonl:1/],
    ['a prompt without an answer', 'a.jsonl', '{"prompt": "a"}', /a\.jsonl:1/],
    ['no messages', 'a.jsonl', '{"messages": []}', /a\.jsonl:1/],
    [
      'a message of parts',
      'a.jsonl',
      '{"messages": [{"role": "user", "content": [{}]}]}',
      /a\.jsonl:1/,
    ],
    [
      'nesting without end',
      'a.jsonl',
      `{"text": ${'['.repeat(500)}${']'.repeat(500)}}`,
      /a\.jsonl:1/,
    ],
    ['an empty file', 'a.jsonl', '\n \n', /a\.jsonl holds no sample/],
    ['an empty text', 'a.txt', ' \n', /a\.txt holds no text/],
    [
      'bytes that are no UTF-8',
      'a.txt',
      Uint8Array.of(0x61, 0xff, 0xfe),
      /a\.txt is not UTF-8 text/,
    ],
    ['a binary file', 'a.txt', Uint8Array.of(0x61, 0, 0x62), /a\.txt is not UTF-8 text/],
  ])('%s', async (_, name, content, message) => {
    const refusal = {
      code: 'convert.bad-calibration',
      message: expect.stringMatching(message),
    };
    await expect(readCalibration(await write(name, content))).rejects.toMatchObject(refusal);
  });

  test('a whole training set', async () => {
    const path = await write('a.txt', 'a');
    await truncate(path, 300 * 1024 * 1024);
    await expect(readCalibration(path)).rejects.toMatchObject({
      code: 'convert.bad-calibration',
      message: expect.stringContaining('give a part of it'),
    });
  });

  test('a file that is not there, and a directory', async () => {
    const directory = await temporaryDirectory();
    const code = 'convert.bad-calibration';
    const refusal = (message: RegExp) => ({ code, message: expect.stringMatching(message) });
    await expect(readCalibration(join(directory, 'none.jsonl'))).rejects.toMatchObject(
      refusal(/none\.jsonl does not exist/),
    );
    await expect(readCalibration(directory)).rejects.toMatchObject(
      refusal(/cannot be read \(EISDIR\)/),
    );
  });
});
