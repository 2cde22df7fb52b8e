import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { buildLlamaPrograms } from '../../tools/build-llama-programs.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { installedLlamaCpp } from '../../tools/llama-cpp-release.ts';
import { testLlamaCpp } from './test-tools.ts';

let home: string;
let llamaCpp: LlamaCpp;
let lines: string[];
const onProgress = (line: string) => lines.push(line);

/** The installed one, in a place of its own to build in. */
beforeAll(async () => {
  const shared = await testLlamaCpp();
  home = await mkdtemp(join(tmpdir(), 'weldline-programs-'));
  const directory = join(home, 'llama-cpp');
  await mkdir(directory);
  for (const part of ['node_modules', 'source']) {
    await symlink(join(shared.directory, part), join(directory, part));
  }
  const own = installedLlamaCpp(directory);
  if (own === undefined) throw new Error('the installed llama.cpp lacks a part');
  llamaCpp = own;
});
afterAll(async () => {
  await rm(home, { recursive: true });
});
beforeEach(() => {
  lines = [];
});

describe('buildLlamaPrograms', () => {
  it('says that a compiler is missing', async () => {
    const building = buildLlamaPrograms(llamaCpp, ['llama-imatrix'], { variables: { PATH: '' } });
    await expect(building).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/llama-imatrix.*apt install g\+\+.*WELDLINE_LLAMA_CPP/),
    });
  });

  it("shows a compiler's last lines, and leaves nothing that looks finished", async () => {
    const bin = join(home, 'bin');
    await mkdir(bin);
    await writeFile(join(bin, 'c++'), '#!/bin/sh\necho "llama.h: no such file" >&2\nexit 1\n');
    await chmod(join(bin, 'c++'), 0o755);
    const building = buildLlamaPrograms(llamaCpp, ['llama-imatrix'], { variables: { PATH: bin } });
    await expect(building).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringMatching(/llama-imatrix could not be built[\s\S]*no such file/),
    });
    const files = await readdir(join(llamaCpp.directory, 'programs'));
    expect(files.filter((file) => !/\.(so|dylib)$/.test(file))).toEqual([]);
    expect(installedLlamaCpp(llamaCpp.directory)?.programs).toEqual({});
  });

  it('builds a program once, which runs with the libraries and is found again', async () => {
    const names = ['llama-gguf-split'];
    const options = { variables: childVariables(), onProgress };
    const [first, second] = await Promise.all([
      buildLlamaPrograms(llamaCpp, names, options),
      buildLlamaPrograms(llamaCpp, names, options),
    ]);
    expect(second).toEqual(first);
    expect(lines.filter((line) => line.startsWith('Building'))).toHaveLength(1);
    const path = first.programs['llama-gguf-split'] ?? '';
    const { stderr } = spawnSync(path, ['--version'], { encoding: 'utf8', cwd: '/' });
    expect(stderr).toMatch(/^version: 0\.4\.0-dev /);
    expect(installedLlamaCpp(llamaCpp.directory)).toEqual(first);
    expect(await buildLlamaPrograms(first, names, { variables: { PATH: '' } })).toBe(first);
  });

  it("does not build into a user's own", async () => {
    const { libraries: _, ...own } = llamaCpp;
    await expect(buildLlamaPrograms(own, ['llama-imatrix'])).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/has no llama-imatrix.*cmake --build build --target/),
    });
  });
});
