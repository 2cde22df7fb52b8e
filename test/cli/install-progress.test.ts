import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { InstallProgress } from '../../cli/install-progress.ts';
import { waitFor } from '../harness/wait-for.ts';

const REDRAW = '\r\u001b[2K';

let directory: string;
let written: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-progress-'));
  written = '';
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

function stream(isTTY: boolean): NodeJS.WriteStream {
  const write = (text: string) => {
    written += text;
    return true;
  };
  return { isTTY, columns: 80, write } as NodeJS.WriteStream;
}

it('writes lines into a pipe, and nothing else', async () => {
  const progress = new InstallProgress(directory, stream(false));
  progress.begin('llama.cpp', 10_000_000);
  progress.step('Installing');
  progress.step('[##--] 1/2 torch 2.11.0');
  await writeFile(join(directory, 'file'), Buffer.alloc(5_000_000));
  progress.stop();
  expect(written).toBe('Installing\n[##--] 1/2 torch 2.11.0\n');
});

it('shows in a terminal how much of the folder is there, and removes it at the end', async () => {
  const progress = new InstallProgress(directory, stream(true));
  progress.begin('llama.cpp', 10_000_000);
  progress.step('Installing');
  await waitFor('the first measure', async () => written.includes('llama.cpp') || undefined);
  await writeFile(join(directory, 'file'), Buffer.alloc(5_000_000));
  await waitFor('a bar', async () => written.includes('5.0 MB of') || undefined);
  progress.stop();
  expect(written).toMatch(/llama\.cpp {2}\[#{12}\.{12}\] {2}50% {2}5\.0 MB of 10 MB/);
  expect(written.endsWith(REDRAW)).toBe(true);
});

it('redraws in a terminal what an installer counts', () => {
  const progress = new InstallProgress(directory, stream(true));
  progress.begin('Python tools', 10_000_000);
  progress.step('Making an environment for Python');
  progress.step('[##--] 1/2 torch 2.11.0');
  progress.step('[####] 2/2 numpy 2.4.6');
  progress.stop();
  const counted = [`${REDRAW}[##--] 1/2 torch 2.11.0`, `${REDRAW}[####] 2/2 numpy 2.4.6`];
  expect(written.replaceAll(REDRAW.repeat(2), REDRAW)).toBe(
    `Making an environment for Python\n${counted.join('')}${REDRAW}`,
  );
});
