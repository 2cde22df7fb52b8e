/** Releases that are under way must be carried on by a new version of the workflows. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from '@temporalio/worker';
import { beforeAll, describe, expect, it } from 'vitest';
import { createLogger } from '../../workers/logger.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import { SHARED_BUNDLES } from '../harness/workflow-bundle.ts';

const HISTORIES = fileURLToPath(new URL('../histories/', import.meta.url));
const NAMES = readdirSync(HISTORIES).sort();

let code: string;
let tracedCode: string;
beforeAll(async () => {
  code = await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'));
  tracedCode = await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'), { traced: true });
});

const read = (name: string): string => readFileSync(`${HISTORIES}${name}`, 'utf8');

/** Replays a history. @returns why it cannot be replayed, undefined if it can */
async function replay(name: string, text: string, by = code): Promise<Error | undefined> {
  // The id has no part in what is replayed but for the name of the merge below it.
  const [kind, outcome] = name.replace('.json', '').split('-');
  const workflowId = `release-${outcome}-1.0.0${kind === 'merge' ? '/merge' : ''}`;
  const histories = [{ workflowId, history: JSON.parse(text) }];
  for await (const { error } of Worker.runReplayHistories(
    { workflowBundle: { code: by } },
    histories,
  )) {
    return error;
  }
  throw new Error(`${name} was not replayed`);
}

describe('recorded histories', () => {
  it('are of nights, of merges in several runs, and of releases with all that may happen to them', () => {
    expect(NAMES).toEqual([
      'merge-cancelled.json',
      'merge-continued.json',
      'merge-finished.json',
      'merge-followed.json',
      'nightly-released.json',
      'nightly-unchanged.json',
      'release-approved.json',
      'release-cancelled.json',
      'release-failed.json',
      'release-finished.json',
      'release-judged.json',
      'release-moved.json',
      'release-paused.json',
      'release-published.json',
      'release-resumed.json',
      'release-several.json',
    ]);
  });

  it.each(NAMES)('%s is replayed by the workflows as they are', async (name) => {
    expect(await replay(name, read(name))).toBeUndefined();
  });

  it.each([
    'merge-finished.json',
    'release-cancelled.json',
    'release-judged.json',
    'release-resumed.json',
  ])('%s is replayed by workers that begin to trace in the middle', async (name) => {
    expect(await replay(name, read(name), tracedCode)).toBeUndefined();
  });

  it.each([
    ['release-finished.json', '"preflight"', '"postflight"'],
    ['release-resumed.json', '"verify"', '"trust"'],
    ['merge-finished.json', '"mergeShard"', '"mergeTensor"'],
    ['release-judged.json', '"convert"', '"converse"'],
    ['release-published.json', '"moveAliases"', '"moveNames"'],
    ['release-moved.json', '"answer"', '"reply"'],
    ['nightly-unchanged.json', '"lookAtNight"', '"lookAtDay"'],
  ])('%s would not be replayed by workflows that do something else', async (name, now, then) => {
    const text = read(name);
    expect(text).toContain(now);
    expect((await replay(name, text.replaceAll(now, then)))?.message).toMatch(/determinism/i);
  });

  it('name no place or machine they were made on', () => {
    for (const name of NAMES) {
      const text = read(name);
      const payloads = [...text.matchAll(/"data": "([^"]+)"/g)].map(([, data]) =>
        Buffer.from(data ?? '', 'base64').toString('utf8'),
      );
      const whole = [text, ...payloads].join('\n');
      expect(whole, name).toMatch(/\/srv\/weldline\//);
      expect(whole, name).not.toMatch(/[\s"]\/(tmp|home|Users|root|var|private)\/|\d+@\w/);
    }
  });
});
