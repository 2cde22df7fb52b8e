import { existsSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';

const ROOT = path.resolve(import.meta.dirname, '..');
const PYTHON = path.join(ROOT, '.oracle/bin/python');

/**
 * Runs a Python program with the packages of the oracle and returns what it prints.
 * @param environment added to an environment with nothing else in it but PATH
 */
export async function runOraclePython(
  program: string,
  environment: Readonly<Record<string, string>>,
): Promise<string> {
  return runPython(['-c', program], environment);
}

/** Runs one of the scripts in `oracle/` and returns what it prints. */
export async function runOracle(script: string, args: readonly string[]): Promise<string> {
  return runPython([path.join(ROOT, 'oracle', script), ...args], {});
}

async function runPython(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<string> {
  if (!existsSync(PYTHON)) {
    throw new Error(
      `${PYTHON} is missing: run npm run setup:oracle once, then run the test again.`,
    );
  }
  const { stdout } = await execa(PYTHON, args, {
    env: { PATH: '/usr/bin:/bin', ...environment },
    extendEnv: false,
  });
  return stdout;
}
