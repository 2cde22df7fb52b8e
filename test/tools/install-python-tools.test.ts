import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { findPythonTools } from '../../tools/find-python-tools.ts';
import { installPythonTools } from '../../tools/install-python-tools.ts';
import { findPython } from '../../tools/python.ts';
import { pythonEnvironment, pythonFile } from '../../tools/python-environment.ts';
import { run } from '../../tools/run.ts';
import { TEST_TOOLS, testPythonTools } from './test-tools.ts';

let home: string;
let wheels: string;
let lines: string[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-install-'));
  wheels = join(home, 'wheels');
  await mkdir(wheels);
  lines = [];
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

/** pip finds what is in `wheels` and nothing else. */
const offline = () => ({ ...childVariables(), PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels });
const onProgress = (line: string) => void lines.push(line);
const tools = () => join(home, 'tools');
const python = async () => {
  const found = await findPython({ variables: childVariables(), versionMin: [3, 11] });
  if (found === undefined) throw new Error('these tests need Python 3.11 or newer');
  return found.path;
};

async function script(path: string, text: string): Promise<string> {
  await writeFile(path, `#!/bin/sh\n${text}\n`);
  await chmod(path, 0o755);
  return path;
}

/** A package of one line, as a wheel, and the line of a lock for it. */
async function tinyWheel(name: string): Promise<string> {
  const path = join(wheels, `${name}-1.0-py3-none-any.whl`);
  const program = `
import sys, zipfile
path, name = sys.argv[1:]
info = f"{name}-1.0.dist-info"
with zipfile.ZipFile(path, "w") as wheel:
    wheel.writestr(f"{name}.py", "answer = 42\\n")
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{info}/RECORD", "")
`;
  execFileSync(await python(), ['-c', program, path, name]);
  const digest = createHash('sha256').update(await readFile(path));
  return `${name}==1.0 --hash=sha256:${digest.digest('hex')}\n`;
}

describe('installPythonTools', () => {
  it('does nothing where they are installed, and needs no Python for that', async () => {
    const environment = { toolsDirectory: TEST_TOOLS };
    const variables = { ...childVariables(), PATH: '/nonexistent' };
    const installed = await installPythonTools({ environment, variables, onProgress });
    expect(installed).toEqual(await testPythonTools());
    expect(lines).toEqual([]);
  });

  it('says what to install on a machine without Python', async () => {
    const environment = { toolsDirectory: tools() };
    const variables = { PATH: '/nonexistent' };
    await expect(installPythonTools({ environment, variables })).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(
        /need Python 3\.11 or newer.*apt install python3 python3-venv/,
      ),
    });
  });

  it('refuses packages with other digests, and does not take what is there for finished', async () => {
    await writeFile(join(wheels, 'accelerate-1.15.0-py3-none-any.whl'), 'not the real one');
    // NVIDIA's libraries come along where there is a GPU of theirs.
    const bin = join(home, 'bin');
    await mkdir(bin);
    await script(join(bin, 'nvidia-smi'), 'echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"');
    const PATH = [bin, childVariables()['PATH']].join(delimiter);
    const environment = { toolsDirectory: tools(), python: await python() };
    const variables = { ...offline(), PATH };
    const installing = installPythonTools({ environment, variables, onProgress });
    await expect(installing).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringMatching(/DO NOT MATCH THE HASHES[\s\S]*Or set WELDLINE_PYTHON/),
    });
    expect(lines).toEqual([
      'Making an environment for Python',
      expect.stringMatching(/^\[-{20}\] 1\/\d{2} accelerate 1\.15\.0$/),
    ]);
    const [plain, forGpu] = [false, true].map((isForGpu) => pythonEnvironment(tools(), isForGpu));
    const count = (await Promise.all((forGpu?.locks ?? []).map((lock) => readFile(lock, 'utf8'))))
      .flatMap((lock) => lock.split('\n'))
      .filter((line) => /^\w.*==/.test(line) && !line.includes("'win32'")).length;
    // Of two that are named twice, one is for this Python.
    expect(lines[1]).toContain(`/${count - 2} `);
    expect(forGpu?.directory).not.toBe(plain?.directory);
    expect(existsSync(forGpu?.directory ?? '')).toBe(true);
    expect(existsSync(plain?.directory ?? '')).toBe(false);
    expect(await findPythonTools({ environment: { toolsDirectory: tools() } })).toBeUndefined();
  });

  it('stops when it is cancelled, and leaves nothing that looks finished', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    const environment = { toolsDirectory: tools(), python: await python() };
    const installing = installPythonTools({
      environment,
      variables: offline(),
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(installing).rejects.toBe(reason);
    expect(await findPythonTools({ environment: { toolsDirectory: tools() } })).toBeUndefined();
  });

  it('says which package of the system is missing', async () => {
    // A Python whose `venv` fails as that of Debian does without python3-venv.
    const without = await script(
      join(home, 'python3'),
      `case "$*" in
         *"-m venv"*) echo "ensurepip is not available."; exit 1 ;;
         "-c "*) printf '3.12.1\\n%s\\n' "$0" ;;
         *) shift 4; exec '${await python()}' -c '
import runpy, sys
sys.executable, *sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")' "$0" "$@" ;;
       esac`,
    );
    const environment = { toolsDirectory: tools(), python: without };
    await expect(installPythonTools({ environment })).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringMatching(/ensurepip is not available\.\n.*apt install python3-venv/),
    });
  });

  it('looks at the space on the disk before anything else', async () => {
    await mkdir(tools());
    const module = new URL('../../tools/install-python-tools.ts', import.meta.url).href;
    const program = `
      import { installPythonTools } from '${module}';
      const environment = { toolsDirectory: '${tools()}' };
      const error = await installPythonTools({ environment, variables: process.env }).catch((e) => e);
      console.log(JSON.stringify([error.code, error.message]));`;
    // In a mount namespace of its own, so that nothing is left mounted.
    const report = execFileSync(
      'unshare',
      [
        ...(process.geteuid?.() === 0 ? ['--mount'] : ['--mount', '--map-root-user']),
        ...[
          'sh',
          '-c',
          'mount -t tmpfs -o size=64m tmpfs "$1" && shift && exec "$@"',
          'sh',
          tools(),
        ],
        ...[process.execPath, '--input-type=module', '--eval', program],
      ],
      { encoding: 'utf8' },
    );
    expect(JSON.parse(report)).toEqual([
      'disk.full',
      expect.stringMatching(/0\.1 GB free at .*tools, 3\.0 GB needed/),
    ]);
  });
});

/** The same program with packages that are quickly installed. */
describe('install.py', () => {
  const check = 'import json, tiny_a, tiny_b\nprint(json.dumps({"tiny_a": "1.0"}))\n';
  const directory = () => join(home, 'environment');

  async function install(options: Partial<Parameters<typeof run>[0]> = {}): Promise<string> {
    const files = [join(home, 'check.py'), join(home, 'lock')];
    return await run({
      file: await python(),
      args: ['-E', '-s', '-B', '-u', pythonFile('install.py'), directory(), ...files],
      env: offline(),
      ...options,
    });
  }

  beforeEach(async () => {
    await writeFile(join(home, 'check.py'), check);
    await writeFile(
      join(home, 'lock'),
      `${await tinyWheel('tiny_a')}${await tinyWheel('tiny_b')}tiny_c==1.0 ; sys_platform == 'win32' --hash=sha256:${'0'.repeat(64)}\n`,
    );
  });

  it('starts again after it was killed or failed, and does nothing more when it is done', async () => {
    const controller = new AbortController();
    const killed = install({ signal: controller.signal });
    const outcome = expect(killed).rejects.toThrow('killed');
    while (!existsSync(join(directory(), 'pyvenv.cfg'))) await sleep(20);
    controller.abort(new Error('killed'));
    await outcome;
    expect(await readdir(directory())).not.toContain('weldline-environment.json');

    await writeFile(join(home, 'check.py'), 'import tiny_a, tiny_d\n');
    await expect(install()).rejects.toThrow(
      /the installed packages do not import:\n[\s\S]*No module named 'tiny_d'/,
    );
    expect(await readdir(directory())).not.toContain('weldline-environment.json');

    // Two at once: one waits, or comes late, and finds it done.
    await writeFile(join(home, 'check.py'), check);
    const outputs = await Promise.all([install(), install()]);
    const isMaking = (output: string): boolean => output.startsWith('Making');
    expect(outputs.find(isMaking)?.split('\n')).toEqual([
      'Making an environment for Python',
      '[##########----------] 1/2 tiny_a 1.0',
      '[####################] 2/2 tiny_b 1.0',
      '[####################] 2/2 unpacking',
      'trying what was installed',
      '',
    ]);
    const waits = `waiting for another process that makes ${directory()}\n`;
    expect(['', waits]).toContain(outputs.find((output) => !isMaking(output)));
    expect(await readdir(directory())).not.toContain('tmp');
    expect(await install()).toBe('');
  });

  it('removes nothing that is no environment', async () => {
    await mkdir(directory());
    await writeFile(join(directory(), 'thesis.txt'), 'the only copy');
    await expect(install()).rejects.toThrow('is not a Python environment: name another directory');
    expect(await readdir(directory())).toEqual(['thesis.txt']);
  });
});
