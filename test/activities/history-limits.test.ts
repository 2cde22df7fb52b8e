import { describe, expect, it } from 'vitest';
import { toFailure } from '../../activities/failures.ts';
import { requireFewFiles, shownLines } from '../../activities/history-limits.ts';
import { WeldlineError } from '../../engine/errors.ts';

/** Temporal refuses a value above 2 MB, and ends the workflow that passes it on. */
const REFUSED_BYTES = 2 * 1024 * 1024;
/** Of which it only warns. */
const WARNED_BYTES = 512 * 1024;

const SHA = 'a'.repeat(64);

/** What seal is told: the pin of a base on a hub with its files, and the shards that were merged. */
function sealInputBytes(files: number): number {
  const shards = Array.from({ length: files }, () => ({ size: 4_900_000_000, sha256: SHA }));
  const listed = shards.map(({ size, sha256 }, index) => {
    const path = `model-${10_000 + index}-of-${10_000 + files}.safetensors`;
    return { path, size, sha256 };
  });
  const base = { kind: 'hub', repo: 'org/model', revision: 'main', commit: SHA, files: listed };
  return JSON.stringify({ inputs: { base }, shards }).length;
}

describe('what a release puts into a history', () => {
  it('is the beginning of a message that names everything', () => {
    const names = Array.from({ length: 400_000 }, (_, index) => `model.layers.${index}.weight`);
    const error = new WeldlineError('adapter.unknown-key', `First: ${names.join(', ')}`);
    const { message } = toFailure(error);
    expect(message).toMatch(/^First: model\.layers\.0\.weight, .*…$/);
    expect(message.length).toBeLessThan(10_000);
  });

  it('is the first warnings, and how many more there are', () => {
    const all = Array.from({ length: 1_000 }, (_, index) => `${index} ${'x'.repeat(5_000)}`);
    const shown = shownLines(all);
    expect(shown[0]).toMatch(/^0 x+…$/);
    expect(shown.at(-1)).toBe('And 950 more: see the report.');
    expect(JSON.stringify(shown).length).toBeLessThan(64 * 1024);
  });

  it('leaves few and short warnings as they are', () => {
    expect(shownLines(['one', 'two'])).toEqual(['one', 'two']);
  });

  it('grows with the files of a checkpoint, to what Temporal takes at most', () => {
    expect(sealInputBytes(191)).toBeLessThan(64 * 1024);
    expect(sealInputBytes(1_500)).toBeLessThan(WARNED_BYTES);
    expect(sealInputBytes(5_000)).toBeLessThan(REFUSED_BYTES);
  });

  it('is refused where a checkpoint has more files than a history has room for', () => {
    expect(() => requireFewFiles('org/model', 5_000)).not.toThrow();
    expect(() => requireFewFiles('org/model', 5_001)).toThrow(
      expect.objectContaining({
        code: 'checkpoint.too-many-files',
        message: expect.stringMatching(/^org\/model has 5001 files.*larger shards\.$/),
      }),
    );
  });
});
