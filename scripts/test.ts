/**
 * Sets up everything that the tests need, runs them all, and says how long each part took. The last
 * line is `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
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
  { name: 'native kernel', command: [python, 'kernels/native/build.py'] },
  { name: 'package build', command: ['npm', 'run', '--silent', 'build'] },
];

const CHECKS: readonly Part[] = [
  { name: 'types, lint, dead code', command: ['npm', 'run', '--silent', 'verify'] },
];

const TESTS: Part = {
  name: 'tests',
  command: [
    'npx',
    'vitest',
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${results}`,
  ],
};

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
  rmSync(results, { force: true });
  let failed = 0;
  let passed = 0;
  const failedSetup = SETUP.find((part) => !run(part));
  if (failedSetup === undefined) {
    for (const check of CHECKS) {
      if (run(check)) passed++;
      else failed++;
    }
    const testsPassed = run(TESTS);
    const counts = readCounts();
    passed += counts.passed;
    failed += testsPassed ? counts.failed : Math.max(counts.failed, 1);
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
