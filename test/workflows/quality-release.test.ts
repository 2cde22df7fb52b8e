/** From adapter to what is served, through Temporal, by the real llama.cpp, PEFT and llm-compressor. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { WorkflowUpdateFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GateDecision } from '../../evaluation/gate-decision.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { approveUpdate, type ReleaseResult, statusQuery } from '../../workflows/messages.ts';
import {
  EXAMPLE,
  exampleSuite,
  type QualityRecipe,
  type QualitySetup,
  qualityRecipe,
  setUpQuality,
} from '../harness/quality-setup.ts';
import { releaseInput } from '../harness/release-setup.ts';
import {
  activityRuns,
  failureOf,
  historyText,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

/** Imports of torch and transformers alone take most of a minute on a busy machine. */
const TIMEOUT_MS = 15 * 60_000;

const CONVERT = [
  { gguf: { quantization: ['F16', 'Q8_0', 'Q4_K_M'] } },
  {
    awq: {
      bits: 4,
      group_size: 128,
      calibration: join(EXAMPLE, 'calibration', 'calculator.jsonl'),
      samples: 64,
      sequence_length: 32,
    },
  },
];
const PARTS = ['merged', 'gguf-f16', 'gguf-q8_0', 'gguf-q4_k_m', 'awq-w4a16-g128'];

let server: TestServer;
let setup: QualitySetup;
let workers: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpQuality(join(server.directory, 'quality'));
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers.stop();
  await server.stop();
});

function release(recipe: QualityRecipe): Promise<TestRelease> {
  // Programs start in silence for longer than the five seconds after which tests give workers up.
  const input = releaseInput(qualityRecipe(setup, recipe), { heartbeatTimeoutMs: 30_000 });
  return startRelease(server.client, input);
}

async function decisionOf({ judged }: ReleaseResult): Promise<GateDecision> {
  const path = join(setup.home, 'evaluations', 'decisions', `${judged?.decision}.json`);
  return JSON.parse(await readFile(path, 'utf8'));
}

/** Sizes of the logs of all programs that converted or evaluated. */
async function printedBytes(): Promise<ReadonlyMap<string, number>> {
  const logs = join(setup.home, 'logs');
  const names = await readdir(logs, { recursive: true });
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(logs, name))).size));
  const bytes = names.map((name, index) => [name, sizes[index] ?? 0] as const);
  // What programs printed: releases themselves always have something to say.
  const isOfProgram = (name: string): boolean =>
    name.endsWith('.log') && !name.startsWith('releases/');
  return new Map(bytes.filter(([name]) => isOfProgram(name)));
}

describe('a release of all that is served', { timeout: TIMEOUT_MS }, () => {
  let handle: TestRelease;
  let result: ReleaseResult;

  beforeAll(async () => {
    handle = await release({
      name: 'served',
      convert: CONVERT,
      evaluate: { suites: [exampleSuite()] },
    });
    result = await handle.result();
  }, TIMEOUT_MS);

  it('publishes the checkpoint and each conversion on its own', async () => {
    expect(result.judged).toMatchObject({ passed: PARTS, failed: [] });
    const published = await readdir(setup.target);
    expect(published.sort()).toEqual(
      PARTS.map((part) =>
        part === 'merged' ? result.artefact : `${result.artefact}-${part}`,
      ).sort(),
    );
    for (const part of PARTS.slice(1)) {
      const directory = join(setup.target, `${result.artefact}-${part}`);
      const names = await readdir(directory);
      expect(names).toEqual(
        expect.arrayContaining(['README.md', 'conversion.json', 'release.json']),
      );
      const facts = JSON.parse(await readFile(join(directory, 'release.json'), 'utf8'));
      expect(facts).toMatchObject({ plan: result.planDigest, conversion: { id: part } });
      expect(JSON.stringify(facts)).not.toContain(server.directory);
    }
  });

  it('has the scores of all candidates, the base alone among them', async () => {
    const { artefacts } = await decisionOf(result);
    const scores = artefacts.map(({ candidate, suites }) => [candidate, suites[0]?.score?.value]);
    expect(scores.map(([candidate]) => candidate)).toEqual(expect.arrayContaining(PARTS));
    for (const [candidate, score] of scores) expect(score, String(candidate)).toBeGreaterThan(0.8);
    const [merged] = artefacts.filter(({ candidate }) => candidate === 'merged');
    expect(merged?.suites[0]).toMatchObject({
      reference: 'adapter:calculator',
      referenceScore: { value: 0.95 },
      baseScore: { value: 0 },
    });
  });

  it('goes through all stages and holds little in its history', async () => {
    const { stages } = await handle.query(statusQuery);
    expect(stages.map(({ stage, state }) => [stage, state])).toEqual(
      [
        ...['resolve', 'fetch adapter', 'preflight', 'fetch base', 'plan', 'merge', 'seal'],
        ...['verify', 'convert', 'evaluate', 'gate', 'publish', 'report'],
      ].map((stage) => [stage, 'done']),
    );
    expect((await historyText(handle)).length).toBeLessThan(500_000);
  });

  it('makes and asks nothing again when it is run again', async () => {
    const printed = await printedBytes();
    const again = await release({
      name: 'served-again',
      convert: CONVERT,
      evaluate: { suites: [exampleSuite()] },
    });
    const second = await again.result();
    expect(second.judged).toEqual(result.judged);
    expect((await activityRuns(again)).every(({ attempts }) => attempts === 1)).toBe(true);
    // Every start of a program writes a line into its log.
    expect(printed.size).toBeGreaterThan(0);
    expect(await printedBytes()).toEqual(printed);
  });

  it('waits for a person where the gate refuses a part, and publishes it on their word', async () => {
    const strict = await release({
      name: 'strict',
      version: '2.0.0',
      evaluate: { suites: [exampleSuite({ min_score: 1 })] },
    });
    const { waiting, judged } = await waitForStatus(
      strict,
      'the gate',
      (status) => status.waiting !== undefined,
    );
    expect(judged).toMatchObject({ passed: [], failed: [{ id: 'merged' }] });
    expect(waiting).toMatchObject({ stage: 'publish', code: 'gate.failed', needs: 'override' });
    expect(waiting?.message).toContain('score-below-minimum');
    expect(waiting?.message).toContain('Nothing is published.');
    const artefact = result.artefact.replace('1.0.0', '2.0.0');
    expect(await readdir(setup.target)).not.toContain(artefact);

    const withoutReason = strict.executeUpdate(approveUpdate, { args: [{ by: 'ada' }] });
    await expect(withoutReason).rejects.toBeInstanceOf(WorkflowUpdateFailedError);
    await strict.executeUpdate(approveUpdate, { args: [{ by: 'ada', override: 'known gap' }] });
    const { approval } = await strict.result();
    expect(approval).toMatchObject({ by: 'ada', override: 'known gap' });
    const facts = JSON.parse(await readFile(join(setup.target, artefact, 'release.json'), 'utf8'));
    expect(facts.approval).toMatchObject({ by: 'ada', override: 'known gap' });
  });

  it('ends with the reason where the recipe says stop', async () => {
    const stopped = await release({
      name: 'stopped',
      version: '3.0.0',
      evaluate: { suites: [exampleSuite({ min_score: 1 })], on_failure: 'stop' },
    });
    const { code, message } = await failureOf(stopped);
    expect(code).toBe('gate.failed');
    expect(message).toContain('score-below-minimum');
    expect(message).toContain('report.html');
    expect(await readdir(setup.target)).not.toContain(result.artefact.replace('1.0.0', '3.0.0'));
  });
});
