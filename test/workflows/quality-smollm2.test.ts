/** A real model of 135 million parameters, from adapter to what is served and judged. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseRecipe } from '../../config/recipe.ts';
import type { GateDecision } from '../../evaluation/gate-decision.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import type { ReleaseResult } from '../../workflows/messages.ts';
import { type QualitySetup, setUpQuality, writeLines } from '../harness/quality-setup.ts';
import { releaseInput } from '../harness/release-setup.ts';
import { startRelease, startTestWorkers } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const EVAL = at('test/fixtures/smollm2/eval-a.jsonl');
const TIMEOUT_MS = 30 * 60_000;

let server: TestServer;
let setup: QualitySetup;
let workers: RunningWorkers;
let result: ReleaseResult;
let decision: GateDecision;

/** Sums as the adapter learned them, without those that it is asked. */
async function writeCalibration(path: string): Promise<string> {
  const asked = await readFile(EVAL, 'utf8');
  const sums = Array.from({ length: 100 }, (_, index) => [index % 10, Math.floor(index / 10)]);
  const texts = sums.flatMap(([a = 0, b = 0]) =>
    asked.includes(`"Q: ${a}+${b} A:"`) ? [] : [{ text: `Q: ${a}+${b} A: [${a + b}]` }],
  );
  return writeLines(path, texts);
}

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpQuality(join(server.directory, 'quality'));
  workers = await startTestWorkers(server, setup.environment);
  const calibration = await writeCalibration(join(server.directory, 'calibration.jsonl'));
  const recipe = {
    name: 'smollm2',
    version: '1.0.0',
    base: { model: at('.oracle/models/smollm2-135m') },
    adapters: [{ id: 'sums', model: at('test/fixtures/smollm2/adapter-a'), version: '1' }],
    convert: [
      { gguf: { quantization: ['F16', 'Q8_0', 'Q4_K_M'] } },
      { awq: { group_size: 64, calibration, samples: 64, sequence_length: 64 } },
    ],
    evaluate: { suites: [{ id: 'sums', data: EVAL, max_new_tokens: 12 }] },
    publish: [{ directory: { path: setup.target } }],
  };
  const loaded = parseRecipe(JSON.stringify(recipe), join(server.directory, 'recipe.yaml'));
  const input = releaseInput(loaded, { heartbeatTimeoutMs: 60_000 });
  result = await (await startRelease(server.client, input)).result();
  const decisions = join(setup.home, 'evaluations', 'decisions');
  decision = JSON.parse(await readFile(join(decisions, `${result.judged?.decision}.json`), 'utf8'));
}, TIMEOUT_MS);
afterAll(async () => {
  await workers.stop();
  await server.stop();
});

/** Right answers of 20. */
function right(candidate: string): number {
  const artefact = decision.artefacts.find((each) => each.candidate === candidate);
  return Math.round(20 * (artefact?.suites[0]?.score?.value ?? Number.NaN));
}

describe('SmolLM2-135M with an adapter', () => {
  it('passes the gate as a checkpoint, in GGUF and in AWQ', () => {
    expect(result.judged).toMatchObject({
      passed: ['merged', 'gguf-f16', 'gguf-q8_0', 'gguf-q4_k_m', 'awq-w4a16-g64'],
      failed: [],
    });
    expect(result.publications).toHaveLength(5);
  });

  it('answers as the adapter on its base does', () => {
    expect(decision.artefacts[0]?.suites[0]).toMatchObject({
      reference: 'adapter:sums',
      referenceScore: { value: 1 },
      baseScore: { value: 0 },
    });
    expect([right('merged'), right('gguf-f16'), right('gguf-q8_0')]).toEqual([20, 20, 20]);
    // What 4 bits cost; weights that were 4-bit before (the checkpoint comes from Q4_1) vary more.
    expect(right('gguf-q4_k_m')).toBeGreaterThanOrEqual(18);
    expect(right('awq-w4a16-g64')).toBeGreaterThanOrEqual(16);
  });

  it('is the nearer to the reference the more bits it has', () => {
    const kl = (candidate: string): number =>
      decision.artefacts.find((each) => each.candidate === candidate)?.suites[0]?.kl ?? Number.NaN;
    expect(kl('merged')).toBeLessThan(0.001);
    expect(kl('gguf-q8_0')).toBeLessThan(kl('gguf-q4_k_m'));
    expect(kl('gguf-q4_k_m')).toBeLessThan(1);
  });

  it('has a report that says so in one file', async () => {
    const page = result.report.html ?? '';
    expect((await stat(page)).size).toBeLessThan(1_000_000);
    const html = await readFile(page, 'utf8');
    expect(html).toContain('Ship');
    expect(html).not.toMatch(/<(script|link|iframe)\b|https?:\/\/(?!www\.w3\.org)/);
  });
});
