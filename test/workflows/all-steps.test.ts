/** In which order steps are done that need each other, and what a resumed stage does again. */
import { describe, expect, it } from 'vitest';
import { allSteps } from '../../workflows/all-steps.ts';

interface Step {
  readonly id: string;
  readonly needs: readonly string[];
}

const STEPS: readonly Step[] = [
  { id: 'q4', needs: ['f16'] },
  { id: 'f16', needs: [] },
  { id: 'q8', needs: ['f16'] },
  { id: 'awq', needs: [] },
];

/** Runs the steps; those that fail are told. @returns what was worked on, in order */
async function run(done: Map<string, string>, fails: readonly string[]): Promise<string[]> {
  const worked: string[] = [];
  const all = allSteps(
    STEPS,
    done,
    ({ needs }) => needs,
    async ({ id }, needed) => {
      worked.push([id, ...needed].join(' of '));
      if (fails.includes(id)) throw new Error(id);
      return `made ${id}`;
    },
  );
  if (fails.length === 0) await all;
  else await expect(all).rejects.toThrow(fails[0]);
  return worked;
}

describe('steps that need each other', () => {
  it('are done once, each with what it needs', async () => {
    const done = new Map<string, string>();
    expect(await run(done, [])).toEqual(['f16', 'awq', 'q4 of made f16', 'q8 of made f16']);
    expect([...done.keys()].sort()).toEqual(['awq', 'f16', 'q4', 'q8']);
    expect(await run(done, [])).toEqual([]);
  });

  it('do not stop when one of them fails, but what needs it is not done', async () => {
    const done = new Map<string, string>();
    expect(await run(done, ['f16'])).toEqual(['f16', 'awq']);
    expect([...done.keys()]).toEqual(['awq']);
  });

  it('look again at what a failed one was made of, which may be what was damaged', async () => {
    const done = new Map<string, string>();
    await run(done, ['q4']);
    expect([...done.keys()].sort()).toEqual(['awq', 'q8']);
    expect(await run(done, [])).toEqual(['f16', 'q4 of made f16']);
  });
});
