import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { findOnPath } from '../../tools/find-on-path.ts';
import { checkLlamaCpp, installLlamaCpp } from '../../tools/install-llama-cpp.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import {
  installDirectory,
  installedLlamaCpp,
  readLlamaCppLock,
} from '../../tools/llama-cpp-release.ts';
import { type PackageRegistry, startPackageRegistry } from './package-registry.ts';

/** Installing downloads 62 MB where npm's cache lacks them. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

let home: string;
let lines: string[];
const onProgress = (line: string) => lines.push(line);
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-llama-'));
});
afterAll(async () => {
  await rm(home, { recursive: true });
});
beforeEach(() => {
  lines = [];
});

/** A PATH with npm and nothing else: no git, no compiler, no Python. */
async function npmOnly(): Promise<Record<string, string>> {
  const bin = join(home, 'bin');
  await mkdir(bin, { recursive: true });
  const npm = await findOnPath('npm', childVariables()['PATH']);
  if (npm === undefined) throw new Error('these tests need npm');
  await symlink(npm, join(bin, 'npm')).catch(() => undefined);
  return { ...childVariables(), PATH: bin };
}

async function beginAndDie(toolsDirectory: string): Promise<void> {
  const module = new URL('../../tools/install-llama-cpp.ts', import.meta.url).href;
  const script =
    `const { installLlamaCpp } = await import('${module}');` +
    `await installLlamaCpp({ environment: { toolsDirectory: ${JSON.stringify(toolsDirectory)} },` +
    ` onProgress: () => process.kill(process.pid, 'SIGKILL') });`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script]);
  await once(child, 'exit');
}

async function libraryOf({ libraries = '' }: LlamaCpp): Promise<string> {
  const name = (await readdir(libraries)).find((file) => /^libllama\./.test(file));
  return join(libraries, name ?? '');
}

describe('installLlamaCpp', () => {
  let toolsDirectory: string;
  let llamaCpp: LlamaCpp;

  beforeAll(async () => {
    toolsDirectory = join(home, 'tools');
    lines = [];
    // What was begun by a process that was killed is neither used nor waited for.
    await beginAndDie(toolsDirectory);
    expect((await readdir(toolsDirectory)).sort()).toEqual([
      expect.stringMatching(/^\.llama-cpp-/),
      expect.stringMatching(/\.lock$/),
    ]);
    const environment = { toolsDirectory };
    const variables = await npmOnly();
    const install = () => installLlamaCpp({ environment, variables, onProgress });
    const [first, second] = await Promise.all([install(), install()]);
    expect(second).toEqual(first);
    llamaCpp = first;
    expect(lines.toSorted()).toEqual([
      'Extracting the converter of llama.cpp',
      'Installing llama.cpp v0.4.0 with npm (62 MB to download, once)',
      'Trying the libraries of llama.cpp',
      'Waiting for another process that installs llama.cpp',
    ]);
  });

  it('has libraries, modules and the converter, and leaves nothing else behind', async () => {
    expect(llamaCpp).toMatchObject({ origin: 'installed', version: 'v0.4.0 (80fb11ac)' });
    expect(llamaCpp.directory).toBe(installDirectory(toolsDirectory));
    expect(llamaCpp.programs).toEqual({});
    expect(await readdir(toolsDirectory)).toHaveLength(1);
    const converter = await readFile(join(llamaCpp.converter, 'convert_hf_to_gguf.py'), 'utf8');
    expect(converter).toContain('from conversion import');
    expect(await readdir(join(llamaCpp.converter, 'conversion'))).toContain('llama.py');
    expect(await readdir(llamaCpp.converter)).toContain('LICENSE');
  });

  it('brings the packages of this platform only, and none for graphics processors', async () => {
    const modules = llamaCpp.modules ?? '';
    expect(await readdir(join(modules, '@node-llama-cpp'))).toHaveLength(1);
    expect(await readdir(join(modules, '@koromix'))).toHaveLength(1);
    await checkLlamaCpp(llamaCpp, childVariables());
  });

  it('is there when asked for again, without npm', async () => {
    const variables = { PATH: '' };
    const again = await installLlamaCpp({ environment: { toolsDirectory }, variables, onProgress });
    expect(again).toEqual(llamaCpp);
    expect(lines).toEqual([]);
  });

  it('replaces one that lacks a part, or does not load', async () => {
    const [part, other] = [join(llamaCpp.converter, 'conversion'), join(home, 'conversion')];
    await rename(part, other);
    expect(installedLlamaCpp(llamaCpp.directory)).toBeUndefined();
    await rename(other, part);
    const library = await libraryOf(llamaCpp);
    await truncate(library, 1_000_000);
    const options = { environment: { toolsDirectory }, variables: await npmOnly(), onProgress };
    expect(await installLlamaCpp(options)).toEqual(llamaCpp);
    expect(lines[0]).toMatch(/^Replacing the llama\.cpp in .*, which does not work/);
    expect((await stat(library)).size).toBeGreaterThan(1_000_000);
    expect(await readdir(toolsDirectory)).toHaveLength(1);
  });

  it('finds libraries that do not load, or are of another release', async () => {
    const libraries = join(home, 'libraries');
    execFileSync('cp', ['-r', llamaCpp.libraries ?? '', libraries]);
    const library = await libraryOf({ ...llamaCpp, libraries });
    const bytes = await readFile(library);
    const at = bytes.indexOf('0.4.0-dev\0');
    expect(at).toBeGreaterThan(0);
    bytes.write('0.4.1-dev', at);
    await rm(library);
    await writeFile(library, bytes);
    await expect(checkLlamaCpp({ ...llamaCpp, libraries }, childVariables())).rejects.toMatchObject(
      {
        code: 'tool.wrong-version',
        message: expect.stringMatching(/is not llama\.cpp v0\.4\.0: it says .*0\.4\.1-dev/),
      },
    );
    await writeFile(library, bytes.subarray(0, 1_000_000));
    await expect(checkLlamaCpp({ ...llamaCpp, libraries }, childVariables())).rejects.toMatchObject(
      {
        code: 'tool.failed',
      },
    );
  });
});

describe('an installation that fails', () => {
  let toolsDirectory: string;
  beforeEach(async () => {
    toolsDirectory = await mkdtemp(join(home, 'failing-'));
  });

  /** Variables under which npm finds nothing in its cache and asks this registry. */
  async function withRegistry(url: string): Promise<Record<string, string>> {
    return {
      ...(await npmOnly()),
      npm_config_registry: url,
      npm_config_cache: join(toolsDirectory, '..', 'empty-cache'),
      npm_config_fetch_retries: '0',
    };
  }

  it('says that npm is missing', async () => {
    const variables = { ...childVariables(), PATH: toolsDirectory };
    await expect(
      installLlamaCpp({ environment: { toolsDirectory }, variables }),
    ).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/needs npm, which comes with Node\.js.*WELDLINE_LLAMA_CPP/),
    });
    expect(await readdir(toolsDirectory)).toEqual([]);
  });

  it('refuses packages with other digests than those in the lock', async () => {
    const { packages } = JSON.parse(readLlamaCppLock().lock) as {
      packages: Record<string, { version?: string }>;
    };
    const versions = new Map(
      Object.entries(packages).map(([path, { version = '' }]) => [
        path.replace(/^.*node_modules\//, ''),
        version,
      ]),
    );
    const registry: PackageRegistry = await startPackageRegistry(versions);
    try {
      const variables = await withRegistry(registry.url);
      await expect(
        installLlamaCpp({ environment: { toolsDirectory }, variables }),
      ).rejects.toMatchObject({
        code: 'tool.install-failed',
        message: expect.stringMatching(/EINTEGRITY[\s\S]*serves another file/),
      });
      expect(registry.served.length).toBeGreaterThan(0);
    } finally {
      await registry.close();
    }
    expect(await readdir(toolsDirectory)).toEqual([]);
  });

  it('says that the registry cannot be reached', async () => {
    const variables = await withRegistry('http://127.0.0.1:9/');
    await expect(
      installLlamaCpp({ environment: { toolsDirectory }, variables }),
    ).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringMatching(/ECONNREFUSED[\s\S]*does not reach its registry/),
    });
    expect(await readdir(toolsDirectory)).toEqual([]);
  });

  it('stops when it is asked to, and leaves nothing behind', async () => {
    const controller = new AbortController();
    const reason = new Error('asked to stop');
    const installing = installLlamaCpp({
      environment: { toolsDirectory },
      variables: await npmOnly(),
      signal: controller.signal,
      onProgress: () => setTimeout(() => controller.abort(reason), 300),
    });
    await expect(installing).rejects.toBe(reason);
    expect(await readdir(toolsDirectory)).toEqual([]);
  });

  it('says that the disk is too small before it begins', async () => {
    const volume = join(toolsDirectory, 'volume');
    await mkdir(volume);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'weldline-test', volume]);
    try {
      await expect(
        installLlamaCpp({ environment: { toolsDirectory: volume }, variables: await npmOnly() }),
      ).rejects.toMatchObject({
        code: 'disk.full',
        message: expect.stringMatching(/\d MB free.*llama\.cpp v0\.4\.0/s),
      });
      expect(await readdir(volume)).toEqual([]);
    } finally {
      execFileSync('umount', [volume]);
    }
  });

  it('says that its place cannot be written to', async () => {
    const file = join(toolsDirectory, 'file');
    await writeFile(file, '');
    await chmod(file, 0o400);
    await expect(
      installLlamaCpp({ environment: { toolsDirectory: file }, variables: await npmOnly() }),
    ).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringContaining('set WELDLINE_TOOLS to another place'),
    });
  });
});

describe('the lock', () => {
  it('names no registry, and has a digest for every package', () => {
    const { lock } = readLlamaCppLock();
    expect(lock).not.toMatch(/"resolved"/);
    const { packages } = JSON.parse(lock) as { packages: Record<string, { integrity?: string }> };
    const without = Object.entries(packages).filter(([, { integrity }]) => integrity === undefined);
    expect(without.map(([path]) => path)).toEqual(['']);
  });
});
