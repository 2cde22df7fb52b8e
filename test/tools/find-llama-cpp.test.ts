import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { findLlamaCpp } from '../../tools/find-llama-cpp.ts';
import { TEST_TOOLS, testLlamaCpp } from './test-tools.ts';

const KNOWN = 'version: 0.4.0-dev (build 7001, commit 80fb11a)';

let home: string;
let lines: string[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-llama-'));
  lines = [];
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

/** Looks with `bin` of the home as the whole PATH. */
function find(llamaCpp?: string, toolsDirectory = join(home, 'tools')) {
  const environment = { toolsDirectory, ...(llamaCpp === undefined ? {} : { llamaCpp }) };
  const variables = { ...childVariables(), PATH: join(home, 'bin') };
  return findLlamaCpp({ environment, variables, onProgress: (line) => lines.push(line) });
}

/** A program that says, to standard error as the real ones do, which version it is. */
async function program(path: string, said = KNOWN): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `#!/bin/sh\necho '${said}' >&2\necho 'built with GNU 12.2.0' >&2\n`);
  await chmod(path, 0o755);
}

async function converter(directory: string): Promise<void> {
  await mkdir(join(directory, 'conversion'), { recursive: true });
  await writeFile(join(directory, 'convert_hf_to_gguf.py'), '');
  await chmod(join(directory, 'convert_hf_to_gguf.py'), 0o755);
}

/** A checkout of llama.cpp that was built with cmake. */
async function checkout(said = KNOWN): Promise<string> {
  const directory = join(home, 'llama.cpp');
  await converter(directory);
  await program(join(directory, 'build/bin/llama-quantize'), 'usage: llama-quantize');
  await program(join(directory, 'build/bin/llama-imatrix'), said);
  await program(join(directory, 'build/bin/llama-server'), said);
  return directory;
}

describe('findLlamaCpp', () => {
  it('finds nothing on a bare machine', async () => {
    expect(await find()).toBeUndefined();
    expect(lines).toEqual([]);
  });

  it('finds the installed one', async () => {
    const installed = await testLlamaCpp();
    expect(await find(undefined, TEST_TOOLS)).toEqual(installed);
  });

  it.each(['', 'build/bin'])('uses the checkout that the user set, given as its %j', async (at) => {
    const directory = join(await checkout(), at);
    const bin = join(home, 'llama.cpp/build/bin');
    expect(await find(directory)).toEqual({
      origin: 'setting',
      directory,
      version: 'v0.4.0-dev (b7001-80fb11a)',
      converter: join(home, 'llama.cpp'),
      programs: {
        'llama-quantize': join(bin, 'llama-quantize'),
        'llama-imatrix': join(bin, 'llama-imatrix'),
        'llama-server': join(bin, 'llama-server'),
      },
    });
  });

  it('uses the one on PATH before the installed one, also through links', async () => {
    await testLlamaCpp();
    const directory = await checkout('version: 0.4.1 (build 7100, commit abcdef0)');
    await mkdir(join(home, 'bin'));
    for (const name of ['llama-quantize', 'llama-imatrix']) {
      await symlink(join(directory, 'build/bin', name), join(home, 'bin', name));
    }
    expect(await find(undefined, TEST_TOOLS)).toMatchObject({
      origin: 'path',
      directory: join(home, 'bin'),
      version: 'v0.4.1 (b7100-abcdef0)',
      converter: directory,
    });
  });

  it('takes the converter from PATH, where it is apart from the programs', async () => {
    await program(join(home, 'bin/llama-quantize'));
    await program(join(home, 'bin/llama-gguf-split'));
    await converter(join(home, 'elsewhere'));
    await symlink(
      join(home, 'elsewhere/convert_hf_to_gguf.py'),
      join(home, 'bin/convert_hf_to_gguf.py'),
    );
    expect(await find()).toMatchObject({ origin: 'path', converter: join(home, 'elsewhere') });
  });

  it.each([
    ['an older build', 'version: 5943 (a12345f)'],
    ['another release', 'version: 0.5.0 (build 9000, commit abcdef0)'],
    ['something else', 'hello'],
  ])('passes over %s on PATH with a line, and takes the installed one', async (_, said) => {
    const installed = await testLlamaCpp();
    const directory = await checkout(said);
    await symlink(join(directory, 'build/bin'), join(home, 'bin'));
    expect(await find(undefined, TEST_TOOLS)).toEqual(installed);
    expect(lines).toEqual([
      expect.stringMatching(/^Passing over the llama\.cpp on PATH: .* weldline knows .* 0\.4 /),
    ]);
    expect(lines[0]).toContain(said);
  });

  it('passes over one on PATH without a converter, or that cannot tell its version', async () => {
    await program(join(home, 'bin/llama-quantize'));
    expect(await find()).toBeUndefined();
    await program(join(home, 'bin/llama-cli'));
    expect(await find()).toBeUndefined();
    expect(lines).toEqual([
      expect.stringContaining('llama-quantize stands alone'),
      expect.stringContaining('no convert_hf_to_gguf.py with its folder "conversion"'),
    ]);
  });

  it('refuses what the user set and cannot be used, also where another is installed', async () => {
    await testLlamaCpp();
    await expect(find(join(home, 'nowhere'), TEST_TOOLS)).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(
        /^WELDLINE_LLAMA_CPP: .*nowhere has no llama-quantize.*weldline tools install gguf/,
      ),
    });
    const directory = await checkout('version: 5943 (a12345f)');
    await expect(find(directory, TEST_TOOLS)).rejects.toMatchObject({
      code: 'tool.wrong-version',
      message: expect.stringMatching(/^WELDLINE_LLAMA_CPP: .*says version: 5943 \(a12345f\)/),
    });
    await writeFile(join(directory, 'build/bin/llama-imatrix'), '#!/bin/sh\nexit 1\n');
    await expect(find(directory, TEST_TOOLS)).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringContaining('exit code 1'),
    });
  });
});
