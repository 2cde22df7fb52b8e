import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compileKernel, KernelMissingError } from '../../kernels/index.ts';
import { addonName } from '../../kernels/native-kernel.ts';

const wasm = fileURLToPath(new URL('../../kernels/merge.wasm', import.meta.url));

let directory: string;
let folder: URL;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-kernels-'));
  folder = pathToFileURL(`${directory}/`);
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe('the choice of the kernel', () => {
  it('falls to WebAssembly where there is no native code', async () => {
    await copyFile(wasm, join(directory, 'merge.wasm'));
    expect((await compileKernel({ folder })).kind).toBe('wasm');
  });

  it('falls to WebAssembly where the native code cannot be loaded', async () => {
    const addon = join(directory, addonName());
    await copyFile(wasm, join(directory, 'merge.wasm'));
    await mkdir(dirname(addon));
    await writeFile(addon, 'built for another platform');
    expect((await compileKernel({ folder })).kind).toBe('wasm');
  });

  it.each([
    { kind: 'native', remedy: /npm run build:native/ },
    { kind: 'wasm', remedy: /npm run build:kernel/ },
  ] as const)('names the remedy where the $kind kernel was never built', async (wanted) => {
    const compiling = compileKernel({ kind: wanted.kind, folder });
    await expect(compiling).rejects.toThrow(KernelMissingError);
    await expect(compiling).rejects.toThrow(wanted.remedy);
  });

  it('is free where a kind is named', async () => {
    expect((await compileKernel({ kind: 'wasm' })).kind).toBe('wasm');
    expect((await compileKernel({ kind: 'scalar' })).kind).toBe('scalar');
  });
});
