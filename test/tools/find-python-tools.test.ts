import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { transformersIdentity } from '../../evaluation/runners/transformers-runner.ts';
import { findPythonTools } from '../../tools/find-python-tools.ts';
import { findPython } from '../../tools/python.ts';
import { KNOWN_VERSIONS, pythonEnvironment } from '../../tools/python-environment.ts';
import { TEST_TOOLS, testPythonTools } from './test-tools.ts';

const variables = childVariables();
let home: string;
let lines: string[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-python-tools-'));
  lines = [];
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

const find = (python?: string, toolsDirectory = home) =>
  findPythonTools({
    environment: { toolsDirectory, ...(python === undefined ? {} : { python }) },
    variables,
    onProgress: (line) => lines.push(line),
  });

/** A program that answers as a Python with these packages does. */
async function fakePython(
  packages: Record<string, string | null>,
  python = '3.12.1',
  rest: { readonly gpu?: boolean } = {},
) {
  const path = join(home, 'python');
  const facts = JSON.stringify({ executable: '/the/real/python', python, packages, ...rest });
  await writeFile(path, `#!/bin/sh\necho '${facts}'\n`);
  await chmod(path, 0o755);
  return path;
}

const KNOWN = Object.fromEntries(
  Object.entries(KNOWN_VERSIONS).map(([name, [series = '1']]) => [name, `${series}.9+cpu`]),
);

describe('findPythonTools', () => {
  it('finds what was installed, with the versions that decide results', async () => {
    const tools = await testPythonTools();
    expect(tools).toMatchObject({
      origin: 'installed',
      versions: { torch: '2.11.0', transformers: '5.17.0', peft: '0.21.2' },
    });
    expect(Object.keys(tools.versions)).toEqual(Object.keys(KNOWN_VERSIONS));
    // The same Python as one of the user's own.
    expect(await find(tools.python)).toEqual({ ...tools, origin: 'setting' });
    expect(lines).toEqual([]);
  });

  it("takes the user's in another release of a known series, and the interpreter behind it", async () => {
    expect(await find(await fakePython(KNOWN))).toEqual({
      origin: 'setting',
      python: '/the/real/python',
      versions: KNOWN,
    });
  });

  it('says whether torch computes on a GPU, which is another arithmetic', async () => {
    const onGpu = await find(await fakePython(KNOWN, '3.12.1', { gpu: true }));
    const onCpu = await find(await fakePython(KNOWN, '3.12.1', { gpu: false }));
    expect(onGpu).toMatchObject({ gpu: true });
    expect(onCpu).not.toHaveProperty('gpu');
    // The gate allows for the rounding of bfloat16, and nothing that is kept is taken for the other's.
    expect(transformersIdentity(onGpu!)).toBe(`${transformersIdentity(onCpu!)}, bfloat16 on a GPU`);
  });

  it("falls back from a user's that lacks packages to what was installed, and says so", async () => {
    const bare = await findPython({ variables });
    const tools = await testPythonTools();
    expect(await find(bare?.path, TEST_TOOLS)).toEqual(tools);
    expect(lines).toEqual([
      expect.stringMatching(/^Passing over WELDLINE_PYTHON: \/.* has no torch, has no/),
    ]);
  });

  it('does not take another series of a package', async () => {
    const python = await fakePython({ ...KNOWN, torch: '2.110.0', peft: '0.20.1', numpy: null });
    expect(await find(python)).toBeUndefined();
    expect(lines).toEqual([
      `Passing over WELDLINE_PYTHON: ${python} has torch 2.110.0, weldline knows 2.11, has peft 0.20.1, ` +
        'weldline knows 0.21, has no numpy.',
    ]);
  });

  it('refuses a setting that is no Python, or too old a one', async () => {
    await expect(find('/nonexistent/python')).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/^WELDLINE_PYTHON: \/nonexistent\/python cannot be started/),
    });
    await expect(find(await fakePython(KNOWN, '3.10.9'))).rejects.toMatchObject({
      code: 'tool.wrong-version',
      message: expect.stringContaining('is Python 3.10.9; converting and evaluating need 3.11'),
    });
    await expect(find('/bin/echo')).rejects.toMatchObject({
      code: 'tool.wrong-version',
      message: expect.stringContaining('does not behave like a Python; asked for its packages'),
    });
    await expect(find('/bin/false')).rejects.toMatchObject({ code: 'tool.not-found' });
  });

  it('passes over what is half made or no longer runs', async () => {
    expect(await find()).toBeUndefined();
    const { directory, python } = pythonEnvironment(home, false);
    await mkdir(join(directory, 'bin'), { recursive: true });
    await writeFile(python, '#!/bin/sh\nexit 3\n');
    await chmod(python, 0o755);
    expect(await find()).toBeUndefined();
    expect(lines).toEqual([]);
    await writeFile(join(directory, 'weldline-environment.json'), '{}');
    expect(await find()).toBeUndefined();
    expect(lines).toEqual([expect.stringMatching(/^Passing over .* failed with exit code 3/)]);
  });
});
