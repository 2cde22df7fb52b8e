/**
 * Releases whose programs are missing, of other versions, killed, silent, talking nonsense or out of
 * disk: each waits with a clear error, takes nothing half-made for done, and goes on once it is mended.
 */
import { execFileSync } from 'node:child_process';
import {
  appendFile,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Environment, readEnvironment } from '../../config/environment.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { resumeSignal, statusQuery, type Waiting } from '../../workflows/messages.ts';
import {
  type FailingProgram,
  type FailingTools,
  makeFailingTools,
} from '../harness/failing-tools.ts';
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
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { survivors } from '../tools/is-alive.ts';

/** Programs that import torch take most of a minute to start on a busy machine. */
const TIMEOUT_MS = 10 * 60_000;
const VOLUME_BYTES = 32 * 1024 * 1024;

let server: TestServer;
let setup: QualitySetup;
let tools: FailingTools;
let workers: RunningWorkers | undefined;
/** Environments of workers: nothing installed; programs that fail; all that is needed. */
let environments: Record<'bare' | 'failing', Environment>;
/** Small volumes, where disks fill up. */
let conversions: string;
let evaluations: string;
let suite: string;
let calibration: string;
/** One is converted, the other is evaluated, so that each fails by itself. */
let converted: TestRelease;
let evaluated: TestRelease;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpQuality(join(server.directory, 'quality'));
  tools = await makeFailingTools(join(setup.directory, 'failing'));
  const bare = { ...setup.variables, WELDLINE_TOOLS: join(setup.directory, 'none') };
  const { python, llamaCpp } = tools;
  const failing = { ...bare, WELDLINE_PYTHON: python, WELDLINE_LLAMA_CPP: llamaCpp };
  environments = {
    bare: readEnvironment(bare),
    failing: readEnvironment({ ...failing, WELDLINE_STALL_TIMEOUT: '5' }),
  };
  conversions = await mount('conversions');
  evaluations = await mount('evaluations');
  suite = join(setup.directory, 'suite.jsonl');
  await copyFile(join(EXAMPLE, 'eval', 'calculator.jsonl'), suite);
  calibration = join(setup.directory, 'calibration.jsonl');
  await copyFile(join(EXAMPLE, 'calibration', 'calculator.jsonl'), calibration);
}, TIMEOUT_MS);

afterAll(async () => {
  await workers?.stop();
  for (const volume of [conversions, evaluations]) execFileSync('umount', [volume]);
  await server.stop();
});

async function mount(name: string): Promise<string> {
  const volume = join(setup.home, name);
  await mkdir(volume);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${VOLUME_BYTES}`, 'weldline-test', volume]);
  return volume;
}

/** Takes all the room of a volume. */
async function fill(volume: string): Promise<() => Promise<void>> {
  const filler = join(volume, 'filler');
  await writeFile(filler, Buffer.alloc(VOLUME_BYTES)).catch(() => undefined);
  return () => rm(filler);
}

async function work(environment: Environment): Promise<void> {
  await workers?.stop();
  workers = await startTestWorkers(server, environment);
}

function start(recipe: QualityRecipe, workflowId = recipe.name): Promise<TestRelease> {
  const input = releaseInput(qualityRecipe(setup, recipe), { heartbeatTimeoutMs: 30_000 });
  return startRelease(server.client, input, workflowId);
}

const shown = new Map<TestRelease, Waiting>();

/** What a release waits for, other than what it waited for before. */
async function nextWaiting(release: TestRelease): Promise<Waiting> {
  const before = shown.get(release)?.message;
  const { waiting } = await waitForStatus(
    release,
    'trouble',
    (status) => status.waiting !== undefined && status.waiting.message !== before,
  );
  shown.set(release, waiting as Waiting);
  return waiting as Waiting;
}

/** The one file of the one conversion that there is. */
async function sourceFile(): Promise<string> {
  const names = await readdir(conversions);
  expect(names).toEqual([expect.stringMatching(/^gguf-f16-[0-9a-f]{16}$/)]);
  const directory = join(conversions, names[0] ?? '');
  const [file = ''] = (await readdir(directory)).filter((name) => name.endsWith('.gguf'));
  return join(directory, file);
}

/** How a program fails from now on, and what the release waits for then. */
async function failureOf(release: TestRelease, name: FailingProgram, mode: string) {
  await tools.fail(name, mode);
  await release.signal(resumeSignal);
  const { stage, code, message } = await nextWaiting(release);
  expect(message, 'a bug or a stack trace').not.toMatch(/bug in weldline|\n\s+at /);
  expect(await survivors(await tools.started())).toEqual([]);
  return { stage, code, message };
}

it(
  'waits before the merge where programs are missing, and says how to get them',
  async () => {
    await work(environments.bare);
    converted = await start({ name: 'converted', convert: [{ gguf: { quantization: ['Q8_0'] } }] });
    evaluated = await start({
      name: 'evaluated',
      version: '2.0.0',
      evaluate: { suites: [exampleSuite({ data: suite })] },
    });
    expect(await nextWaiting(converted)).toMatchObject({
      stage: 'preflight',
      code: 'tool.not-found',
      message: expect.stringMatching(/llama\.cpp and .*Python tools.*weldline tools install gguf$/),
    });
    expect(await nextWaiting(evaluated)).toMatchObject({
      stage: 'preflight',
      code: 'tool.not-found',
      message: expect.stringMatching(/Python tools.*weldline tools install eval$/),
    });
    expect(await readdir(setup.home)).not.toContain('merges');
  },
  TIMEOUT_MS,
);

it(
  'says which versions of programs it does not take',
  async () => {
    await work(environments.failing);
    const llama = await failureOf(converted, 'llama-gguf-split', 'says:version: 9.9.9 (build 1)');
    expect(llama).toMatchObject({ stage: 'preflight', code: 'tool.wrong-version' });
    expect(llama.message).toMatch(/WELDLINE_LLAMA_CPP: .* says version: 9\.9\.9 .* knows .* 0\.4/);
    await tools.fail('llama-gguf-split');

    const old = { executable: tools.python, python: '3.11.0', packages: { torch: '1.13.1' } };
    const python = await failureOf(evaluated, 'probe', `says:${JSON.stringify(old)}`);
    expect(python).toMatchObject({ stage: 'preflight', code: 'tool.not-found' });
    expect(python.message).toMatch(
      /Passing over WELDLINE_PYTHON: .*torch 1\.13\.1, weldline knows/,
    );
    expect(python.message).toContain('weldline tools install eval');
    for (const nonsense of ['42', 'null', 'hello']) {
      const { code, message } = await failureOf(evaluated, 'probe', `says:${nonsense}`);
      expect(code).toBe('tool.wrong-version');
      expect(message).toContain(`it printed "${nonsense}"`);
    }
    await tools.fail('probe');
  },
  TIMEOUT_MS,
);

it(
  'does not believe a converter that talks nonsense before the merge',
  async () => {
    const { stage, code, message } = await failureOf(converted, 'inspect', 'garbage');
    expect({ stage, code }).toEqual({ stage: 'preflight', code: 'tool.failed' });
    expect(message).toContain('{"gar": bage');
    await tools.fail('inspect');
  },
  TIMEOUT_MS,
);

it(
  'takes no conversion for done whose program fails, and goes on when it is mended',
  async () => {
    const makeRoom = await fill(conversions);
    await tools.fail('run_converter', 'fills');
    const cases = [
      ['run_converter', 'fills', 'disk.full', /No space left on device/],
      ['run_converter', 'full', 'disk.full', /The disk is full: free some space/],
      ['run_converter', 'killed', 'tool.killed', /exit code 137\. .*out of memory/],
      ['run_converter', 'failed', 'tool.failed', /exit code 1\.\s+ValueError: no such thing/],
      ['run_converter', 'hang', 'tool.stalled', /printed nothing for 5 s and was stopped/],
    ] as const;
    for (const [name, mode, expected, message] of cases) {
      const failure = await failureOf(converted, name, mode);
      expect(failure, mode).toMatchObject({ stage: 'convert', code: expected });
      expect(failure.message).toMatch(message);
      if (mode === 'fills') await makeRoom();
      expect(await readdir(conversions), mode).toEqual([]);
    }
    // A program that hangs is tried once more, and then a person is asked.
    expect((await activityRuns(converted)).filter(({ type }) => type === 'convert')).toMatchObject([
      ...cases.slice(0, -1).map(([, , code]) => ({ attempts: 1, failures: [code] })),
      { attempts: 2, failures: ['tool.stalled', 'tool.stalled'] },
    ]);

    await tools.fail('run_converter');
  },
  TIMEOUT_MS,
);

it(
  'keeps what is finished while the next program fails, and makes it again where it is damaged',
  async () => {
    const cases = [
      ['ended', 'tool.killed', /llama-quantize .*SIGKILL\. .*out of memory/],
      ['half', 'convert.check-failed', /Q8_0\.gguf.*Nothing of this conversion is kept/],
      [
        'garbage',
        'convert.check-failed',
        /holds no GGUF file\. Nothing of this conversion is kept/,
      ],
      ['hang', 'tool.stalled', /printed nothing for 5 s and was stopped/],
      ['full', 'disk.full', /free some space/],
    ] as const;
    let sound: Buffer | undefined;
    for (const [mode, expected, text] of cases) {
      if (mode === 'full') {
        // A source that is not what it was is found, and made again by who resumes.
        await appendFile(await sourceFile(), 'x');
        const { code } = await failureOf(converted, 'llama-quantize', mode);
        expect(code).toBe('convert.source-damaged');
      }
      const { stage, code, message } = await failureOf(converted, 'llama-quantize', mode);
      expect({ stage, code }, message).toEqual({ stage: 'convert', code: expected });
      expect(message).toMatch(text);
      const bytes = await readFile(await sourceFile());
      sound ??= bytes;
      expect(bytes.equals(sound), mode).toBe(true);
    }
  },
  TIMEOUT_MS,
);

it(
  'waits for calibration data that goes away, and for llm-compressor',
  async () => {
    const settings = { bits: 4, group_size: 128, calibration, samples: 8, sequence_length: 32 };
    await rm(calibration);
    const release = await start({ name: 'calibrated', convert: [{ awq: settings }] });
    expect(await nextWaiting(release)).toMatchObject({
      stage: 'preflight',
      code: 'convert.bad-calibration',
      message: expect.stringContaining(`${calibration} does not exist`),
    });
    await copyFile(join(EXAMPLE, 'calibration', 'calculator.jsonl'), calibration);
    const garbage = await failureOf(release, 'quantize', 'garbage');
    expect(garbage).toMatchObject({ stage: 'convert', code: 'tool.failed' });
    expect(garbage.message).toContain('did not say that it finished');
    await rm(calibration);
    await release.signal(resumeSignal);
    expect(await nextWaiting(release)).toMatchObject({
      stage: 'convert',
      code: 'convert.bad-calibration',
    });
    await copyFile(join(EXAMPLE, 'calibration', 'calculator.jsonl'), calibration);
    expect(await failureOf(release, 'quantize', 'killed')).toMatchObject({ code: 'tool.killed' });
    expect(await readdir(conversions)).toEqual([expect.stringMatching(/^gguf-f16-/)]);
    await release.cancel();
    await expect(release.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
  },
  TIMEOUT_MS,
);

it(
  'takes no evaluation for done whose program fails',
  async () => {
    let makeRoom = await fill(evaluations);
    await tools.fail('transformers_runner', 'mute');
    await evaluated.signal(resumeSignal);
    expect(await nextWaiting(evaluated)).toMatchObject({ stage: 'preflight', code: 'disk.full' });
    await makeRoom();
    const garbage = await failureOf(evaluated, 'transformers_runner', 'garbage');
    expect(garbage).toMatchObject({ stage: 'evaluate', code: 'evaluate.runner-failed' });
    expect(garbage.message).toMatch(/printed what is no reply: ".*{"gar": bage/);
    // What preflight saw of the suite is what is asked.
    await rm(suite);
    makeRoom = await fill(evaluations);
    const full = await failureOf(evaluated, 'transformers_runner', 'mute');
    expect(full).toMatchObject({ stage: 'evaluate', code: 'disk.full' });
    await makeRoom();
    const cases = [
      ['mute', 'evaluate.runner-failed', /left prompt 0 of calculator without an answer/],
      ['killed', 'tool.killed', /out of memory/],
      ['full', 'disk.full', /free some space/],
      ['hang', 'tool.stalled', /was not ready after 5 s and was stopped/],
      ['silent', 'tool.stalled', /printed nothing for 5 s and was stopped/],
    ] as const;
    for (const [mode, expected, text] of cases) {
      const failure = await failureOf(evaluated, 'transformers_runner', mode);
      expect(failure, mode).toMatchObject({ stage: 'evaluate', code: expected });
      expect(failure.message).toMatch(text);
    }
    const kept = await readdir(evaluations, { recursive: true });
    expect(kept.filter((name) => /outcome|compared|distributions|results/.test(name))).toEqual([]);
  },
  TIMEOUT_MS,
);

it(
  'finishes both when the next worker has what it needs, without the suite that is gone',
  async () => {
    const before = await readdir(conversions);
    const { inputs } = await converted.query(statusQuery);
    const artefact = inputs?.artefact ?? '';
    // A link to a volume that is not there: one artefact cannot be written where others can.
    const place = join(setup.target, `${artefact}-gguf-q8_0`);
    await mkdir(setup.target, { recursive: true });
    await symlink(join(setup.directory, 'volume'), place);
    await work(setup.environment);
    await converted.signal(resumeSignal);
    await evaluated.signal(resumeSignal);
    const scores = await evaluated.result();
    expect(scores.judged).toMatchObject({ passed: ['merged'], failed: [] });

    expect(await nextWaiting(converted)).toMatchObject({
      stage: 'publish',
      code: 'publish.not-writable',
      message: expect.stringContaining(place),
    });
    expect(await readdir(setup.target)).toContain(artefact);
    // The 16-bit file was finished by then.
    const made = (await readdir(conversions)).filter((name) => !before.includes(name));
    expect(made).toEqual([expect.stringMatching(/^gguf-q8_0-[0-9a-f]{16}$/)]);
    await rm(place);
    await converted.signal(resumeSignal);
    const { publications } = await converted.result();
    expect(publications.map(({ part, existed }) => [part, existed])).toEqual([
      ['merged', false],
      ['gguf-q8_0', false],
    ]);
    expect(await survivors(await tools.started())).toEqual([]);
  },
  TIMEOUT_MS,
);
