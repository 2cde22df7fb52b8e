/**
 * The road of a llama.cpp of the user's own. There is no llama-server to be had without building it
 * for minutes, so what is tested here is what happens around one; answers were compared by hand.
 */
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { startLlamaCppRunner } from '../../evaluation/runners/llama-cpp-runner.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { descendantsWith } from '../harness/child-processes.ts';

const OWN: LlamaCpp = {
  origin: 'path',
  directory: '/opt/llama.cpp',
  version: 'v0.4.0 (80fb11ac)',
  converter: '/opt/llama.cpp',
  programs: {},
};

async function startWith(script: string, signal?: AbortSignal) {
  const program = join(await temporaryDirectory(), 'llama-server');
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  const starting = startLlamaCppRunner({
    model: '/models/example.gguf',
    llamaCpp: { ...OWN, programs: { 'llama-server': program } },
    variables: childVariables(),
    signal,
  });
  return { program, starting };
}

describe('a llama-server', () => {
  it('that is missing is an error that says what to do', async () => {
    const starting = startLlamaCppRunner({ model: 'm', llamaCpp: OWN, variables: {} });
    await expect(starting).rejects.toMatchObject({ code: 'tool.not-found' });
    await expect(starting).rejects.toThrow(/no llama-server.*weldline tools install gguf/s);
  });

  it('that ends before it is ready is an error with its last lines', async () => {
    const { starting } = await startWith('echo "error: failed to load $2" >&2; exit 1');
    await expect(starting).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
    await expect(starting).rejects.toThrow(
      /example\.gguf ended before it was ready \(exit code 1\)\..*failed to load \/models\/example\.gguf/s,
    );
  });

  it('is gone when the start is aborted', async () => {
    const abort = new AbortController();
    const reason = new Error('never mind');
    const { program, starting } = await startWith('sleep 600', abort.signal);
    await expect.poll(() => descendantsWith(program), { timeout: 30_000 }).not.toEqual([]);
    abort.abort(reason);
    await expect(starting).rejects.toBe(reason);
    expect(await descendantsWith(program)).toEqual([]);
  });
});
