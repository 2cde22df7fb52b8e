/** Wrong merges of real models are found by the gate, each by a named signal. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import type { RecipeEvaluation } from '../../config/release-quality.ts';
import { digestOf } from '../../engine/canonical-json.ts';
import type { CandidateModel } from '../../evaluation/candidate-runner.ts';
import { evaluateCandidate } from '../../evaluation/evaluate-candidate.ts';
import { decideGate } from '../../evaluation/gate/decide-gate.ts';
import type { ArtefactDecision } from '../../evaluation/gate-decision.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import { planCandidates } from '../../evaluation/plan-candidates.ts';
import type { SuiteResult } from '../../evaluation/results.ts';
import type { Suite } from '../../evaluation/suite.ts';
import { type Inputs, makeMerges } from '../harness/broken-merges.ts';
import { testPythonTools } from '../tools/test-tools.ts';

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

interface Model extends Inputs {
  readonly name: string;
  readonly data: string;
}

const TINY: Model = {
  name: 'the example',
  base: at('examples/tiny/base'),
  adapter: at('examples/tiny/adapters/calculator'),
  otherAdapter: at('examples/tiny/adapters/extractor'),
  data: at('examples/tiny/eval/calculator.jsonl'),
  layer: 1,
};

/** Layer 15 of 30 is the one whose loss shows least. */
const SMOLLM2: Model = {
  name: 'SmolLM2-135M',
  base: at('.oracle/models/smollm2-135m'),
  adapter: at('test/fixtures/smollm2/adapter-a'),
  otherAdapter: at('test/fixtures/smollm2/adapter-b'),
  data: at('test/fixtures/smollm2/eval-a.jsonl'),
  layer: 15,
};

/** Six candidates load torch one after the other. */
const TIMEOUT_MS = 20 * 60_000;

describe.each([TINY, SMOLLM2])('the gate, of $name,', { timeout: TIMEOUT_MS }, (model) => {
  let directory: string;
  let merges: Awaited<ReturnType<typeof makeMerges>>;
  let suites: readonly Suite[];
  const evaluation: RecipeEvaluation = {
    suites: [
      {
        ...{ id: 'own', data: model.data, adapter: 'own', matcher: 'exact' },
        ...{ newTokensMax: 12, dropMax: 0.001 },
      },
    ],
    onFailure: 'stop',
  };
  const candidates = planCandidates({ evaluation, steps: [], adapterIds: ['own'] });
  const before: SuiteResult[] = [];
  const digests: Record<string, string> = {};

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weldline-broken-'));
    merges = await makeMerges(model, directory);
    suites = await loadSuites(evaluation.suites, model.base);
    const { base, adapter } = model;
    before.push(...(await evaluate('base', { directory: base, digest: digestOf('base') })));
    const digest = digestOf('adapter');
    before.push(...(await evaluate('adapter:own', { directory: base, adapter, digest })));
  }, TIMEOUT_MS);
  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  async function evaluate(id: string, files: CandidateModel): Promise<readonly SuiteResult[]> {
    const step = candidates.find((candidate) => candidate.id === id);
    if (step === undefined) throw new Error(`no candidate ${id}`);
    digests[id] = files.digest;
    return evaluateCandidate({
      ...{ step, suites, model: files, references: digests },
      tools: { python: await testPythonTools(), variables: childVariables(), threads: 2 },
      directory: join(directory, 'evaluations'),
      signal: new AbortController().signal,
    });
  }

  async function decide(merge: keyof typeof merges): Promise<ArtefactDecision> {
    const files = { directory: merges[merge], digest: digestOf(merge) };
    const results = [...before, ...(await evaluate('merged', files))];
    const [merged] = decideGate({ evaluation, candidates, results }).artefacts;
    if (merged === undefined) throw new Error('the gate decided nothing');
    return merged;
  }

  const signals = ({ failures }: ArtefactDecision) => failures.map(({ signal }) => signal);

  it('passes a right merge', async () => {
    const decision = await decide('right');
    expect(signals(decision)).toEqual([]);
    expect(decision.passed).toBe(true);
    expect(decision.suites[0]?.kl).toBeLessThan(0.0005);
  });

  it('finds an adapter that was applied at twice its scale', async () => {
    expect(signals(await decide('twice'))).toContain('distributions-differ');
  });

  it('finds a layer that was skipped', async () => {
    expect(signals(await decide('skipped'))).toContain('distributions-differ');
  });

  it('finds the wrong adapter', async () => {
    const found = signals(await decide('other'));
    expect(found).toEqual(
      expect.arrayContaining(['score-drop', 'fine-tune-absent', 'distributions-differ']),
    );
  });
});
