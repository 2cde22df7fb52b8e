/**
 * Sets up everything that the tests need, runs them all, and says how long each part took. The last
 * line is `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const results = `${root}node_modules/.cache/weldline/test-results.json`;
const smollm2 = `${root}.oracle/models/smollm2-135m`;

interface Part {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

const python = process.platform === 'win32' ? 'python' : 'python3';
const oraclePython = `${root}.oracle/bin/python`;

/** Each needs the ones before it. */
const SETUP: readonly Part[] = [
  { name: 'oracle (torch, transformers, PEFT)', command: [python, 'oracle/setup.py'] },
  { name: 'SmolLM2-135M checkpoint', command: [oraclePython, 'oracle/smollm2.py', smollm2] },
  {
    name: 'SmolLM2-135M in NF4, as QLoRA trains on it',
    command: [oraclePython, 'oracle/nf4.py', smollm2, `${smollm2}-nf4`],
  },
  {
    name: 'llama.cpp, and torch, transformers, PEFT, llm-compressor for conversions',
    command: [process.execPath, 'scripts/test-tools.ts'],
  },
  {
    name: 'S3, OCI and MLflow servers, clients of hubs, registries and signatures',
    command: [python, 'test/services/setup.py'],
  },
  { name: 'native kernel', command: [python, 'kernels/native/build.py'] },
  { name: 'package build', command: ['npm', 'run', '--silent', 'build'] },
];

const CHECKS: readonly Part[] = [
  { name: 'types, lint, dead code', command: ['npm', 'run', '--silent', 'verify'] },
];

/**
 * Tests that run models, converters and quantizers: minutes of work, which would slow those down that
 * watch the clock. So they come after the others.
 */
const WITH_MODELS = [
  'test/conversion/gguf/convert-',
  'test/conversion/integer/convert-',
  'test/crash/quality-kill',
  'test/evaluation/broken-merges',
  'test/evaluation/runners',
  'test/workflows/quality-',
];

const TESTS: readonly Part[] = [
  vitest(
    'tests',
    // Half of what they do is waiting for processes to start: two at a time, also on two cores.
    [
      `--maxWorkers=${Math.max(2, availableParallelism() - 1)}`,
      ...WITH_MODELS.flatMap((path) => ['--exclude', `**/${path}*`]),
    ],
  ),
  vitest('tests that run models', WITH_MODELS),
];

function vitest(name: string, args: readonly string[]): Part {
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`];
  return { name, command: ['npx', 'vitest', 'run', ...reporters, ...args] };
}

const times: [string, number][] = [];

function run({ name, command: [program, ...args] }: Part): boolean {
  console.log(`\n=== ${name}`);
  const startedAt = performance.now();
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit' });
  times.push([name, (performance.now() - startedAt) / 1000]);
  if (error !== undefined) console.error(`${program} cannot be run: ${error.message}`);
  return status === 0;
}

function readCounts(): { passed: number; failed: number } {
  if (!existsSync(results)) return { passed: 0, failed: 1 };
  const { numPassedTests, numFailedTests, numFailedTestSuites } = JSON.parse(
    readFileSync(results, 'utf8'),
  ) as Record<'numPassedTests' | 'numFailedTests' | 'numFailedTestSuites', number>;
  // A file that cannot be loaded has no tests to count; otherwise suites only group them.
  return { passed: numPassedTests, failed: numFailedTests || numFailedTestSuites };
}

function main(): number {
  mkdirSync(`${root}node_modules/.cache/weldline`, { recursive: true });
  let failed = 0;
  let passed = 0;
  const failedSetup = SETUP.find((part) => !run(part));
  if (failedSetup === undefined) {
    for (const check of CHECKS) {
      if (run(check)) passed++;
      else failed++;
    }
    for (const tests of TESTS) {
      rmSync(results, { force: true });
      const testsPassed = run(tests);
      const counts = readCounts();
      passed += counts.passed;
      failed += testsPassed ? counts.failed : Math.max(counts.failed, 1);
    }
  } else {
    console.error(`\n${failedSetup.name} failed, so no test was run. Its output is above.`);
    failed++;
  }
  console.log('\n=== time of each part');
  for (const [name, seconds] of times) console.log(`${seconds.toFixed(1).padStart(8)} s  ${name}`);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = main();
