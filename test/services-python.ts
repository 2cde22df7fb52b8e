import { existsSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';

const PYTHON = path.resolve(import.meta.dirname, '../.services/python/bin/python');

/**
 * Runs a Python script with the packages of the services: official clients and validators.
 * @param input what it reads from standard input, as JSON
 * @returns what it prints, which is JSON
 */
export async function runServicesPython(script: string, input: unknown): Promise<unknown> {
  if (!existsSync(PYTHON)) {
    throw new Error(
      `${PYTHON} is missing: run python3 test/services/setup.py once, then run the test again.`,
    );
  }
  const { stdout } = await execa(PYTHON, [script], {
    input: JSON.stringify(input),
    env: { PATH: '/usr/bin:/bin' },
    extendEnv: false,
  });
  return JSON.parse(stdout);
}
