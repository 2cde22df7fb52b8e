import path from 'node:path';
import { execa } from 'execa';

const MAIN = path.resolve(import.meta.dirname, '../cli/main.ts');

export interface WeldlineRun {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command as a user would, in a process of its own, and waits for it. */
export async function runWeldline(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<WeldlineRun> {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [MAIN, ...args], {
    env: environment,
    reject: false,
  });
  return { exitCode, stdout, stderr };
}
