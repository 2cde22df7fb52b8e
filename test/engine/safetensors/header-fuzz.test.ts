import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { WeldlineError } from '../../../engine/errors.ts';
import type { SafetensorsHeader } from '../../../engine/safetensors/header.ts';
import { digestOfContent, readHeaderOf } from './describe-file.ts';
import { mutatedFiles } from './mutated-headers.ts';
import { VERDICT_COUNT, VERDICT_SEED, type Verdicts } from './rust-verdicts.ts';

const FUZZ_COUNT = 100_000;

/** Some seconds when the machine is quiet. */
const FUZZ_TIMEOUT_MS = 180_000;

/** Where we refuse what the reference accepts: what no writer makes, and duplicates. */
const STRICTER = [
  'safetensors.duplicate-key',
  'safetensors.bad-name',
  'safetensors.bad-entry',
  'safetensors.bad-metadata',
];

/** @returns the header, or the code of the refusal */
async function judge(file: Uint8Array): Promise<SafetensorsHeader | string> {
  try {
    return await readHeaderOf(file);
  } catch (error) {
    if (error instanceof WeldlineError) return error.code;
    throw error;
  }
}

test(
  'a hundred thousand files are read or refused, and nothing else happens',
  async () => {
    const codes = new Map<string, number>();
    let accepted = 0;
    for (const file of mutatedFiles(1, FUZZ_COUNT)) {
      const verdict = await judge(file);
      if (typeof verdict === 'string') {
        codes.set(verdict, (codes.get(verdict) ?? 0) + 1);
        continue;
      }
      accepted++;
      // What is accepted is covered exactly.
      let end = verdict.dataOffset;
      for (const { offset, byteLength } of verdict.tensors) {
        if (offset !== end) expect.fail(`a gap in ${Buffer.from(file).toString('latin1')}`);
        end += byteLength;
      }
      if (end !== file.length) expect.fail(`a rest of ${Buffer.from(file).toString('latin1')}`);
    }
    for (const code of codes.keys()) expect(code).toMatch(/^safetensors\./);
    // The files are neither all sound nor all hopeless, and wrong in many ways.
    expect(accepted).toBeGreaterThan(FUZZ_COUNT / 10);
    expect(accepted).toBeLessThan(FUZZ_COUNT / 2);
    expect(codes.size).toBeGreaterThan(12);
  },
  FUZZ_TIMEOUT_MS,
);

test('what is accepted, the reference implementation accepts with the same content', async () => {
  const recorded = readFileSync(new URL('./rust-verdicts.json', import.meta.url), 'utf8');
  const verdicts = JSON.parse(recorded) as Verdicts;
  const hash = createHash('sha256');
  let both = 0;
  let index = 0;
  const stricter = new Set<string>();
  for (const file of mutatedFiles(VERDICT_SEED, VERDICT_COUNT)) {
    hash.update(file);
    const theirs = verdicts.accepted[index++];
    const ours = await judge(file);
    if (typeof ours === 'string') {
      if (theirs !== undefined) stricter.add(ours);
      continue;
    }
    const content = {
      file: Buffer.from(file).toString('latin1'),
      digest: digestOfContent(file, ours),
    };
    expect(content).toEqual({ ...content, digest: theirs });
    both++;
  }
  expect(hash.digest('hex')).toBe(verdicts.files);
  expect(both).toBeGreaterThan(VERDICT_COUNT / 10);
  for (const code of stricter) expect(STRICTER).toContain(code);
});
