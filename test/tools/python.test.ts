import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { findPython } from '../../tools/python.ts';

const variables = childVariables();
let bin: string;
beforeAll(async () => {
  bin = await mkdtemp(join(tmpdir(), 'weldline-python-'));
  await writeFile(join(bin, 'python3'), '#!/bin/sh\necho 3.8.18; echo /old\n');
  await chmod(join(bin, 'python3'), 0o755);
});
afterAll(async () => {
  await rm(bin, { recursive: true });
});

describe('findPython', () => {
  it("finds the machine's, and the interpreter behind a version manager", async () => {
    const python = await findPython({ variables });
    expect(python?.version).toMatch(/^3\.\d+\.\d+$/);
    expect(await findPython({ variables, python: python?.path })).toEqual(python);
  });

  it('finds none where there is none or only an old one', async () => {
    expect(await findPython({ variables: { PATH: '/nonexistent' } })).toBeUndefined();
    expect(await findPython({ variables: { PATH: bin } })).toBeUndefined();
  });

  it('refuses the one the user set when it is too old or not there', async () => {
    await expect(findPython({ variables, python: join(bin, 'python3') })).rejects.toMatchObject({
      code: 'tool.wrong-version',
      message: expect.stringContaining('Python 3.8.18; weldline needs 3.9 or newer'),
    });
    await expect(findPython({ variables, python: '/nonexistent' })).rejects.toMatchObject({
      code: 'tool.not-found',
    });
  });
});
