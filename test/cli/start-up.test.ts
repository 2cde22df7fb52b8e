import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { runCommand } from '../harness/command.ts';

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The packages, or their scopes, that a run of the command loads. */
async function packagesOf(...args: string[]): Promise<string[]> {
  const variables = { WELDLINE_HOME: await temporaryDirectory() };
  const hook = at('../harness/log-modules.ts');
  const program = [process.execPath, '--import', hook, at('../../cli/main.ts')] as const;
  const { stderr } = await runCommand(args, { program: [...program], variables });
  const found = stderr.matchAll(/^resolved file:.*\/node_modules\/([^/]+)/gm);
  return [...new Set([...found].map(([, name]) => name ?? ''))];
}

test.each([
  [['--help']],
  [['--version']],
  [['release', '--help']],
  [['schedule', 'create', '--help']],
  [['plan', '--frobnicate']],
])('%j loads nothing but the parser of command lines', async (args) => {
  expect(await packagesOf(...args)).toEqual(['commander']);
});

test('a command loads what it needs, and not Temporal if it needs none', async () => {
  const packages = await packagesOf('plan', '--base', 'missing', '--adapter', 'missing');
  expect(packages).toContain('zod');
  expect(packages).not.toContain('@temporalio');
  expect(await packagesOf('list')).toContain('@temporalio');
});
