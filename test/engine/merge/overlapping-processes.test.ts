/** Two processes that both believe they own a shard: as two hosts on shared storage may. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { stagingAt } from '../../../engine/merge/output-directory.ts';
import { readCompletion } from '../../../engine/merge/shard-file.ts';
import { type Plan, planDigest } from '../../../engine/plan/plan.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles } from '../../doubles/tiny-model.ts';
import { heavyModel } from '../../harness/heavy-model.ts';
import { waitFor } from '../../harness/wait-for.ts';
import type { Round } from './overlapping-child.ts';

const CHILD = fileURLToPath(new URL('./overlapping-child.ts', import.meta.url));
const ROUNDS = 12;
/** Longer than a shard takes: some attempts find it finished, and most are in the middle. */
const DELAY_MS_MAX = 120;
const TIMEOUT_MS = 240_000;

class Merging {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(base: string, adapter: string) {
    const stdio = ['pipe', 'pipe', 'inherit'] as const;
    this.#child = spawn(process.execPath, [CHILD, base, adapter], { stdio: [...stdio] });
    const input = this.#child.stdout as NodeJS.ReadableStream;
    this.#lines = createInterface({ input })[Symbol.asyncIterator]();
  }

  async answer(): Promise<string | undefined> {
    return (await this.#lines.next()).value;
  }

  async merge(round: Round): Promise<string | undefined> {
    this.#child.stdin?.write(`${JSON.stringify(round)}\n`);
    return this.answer();
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}

interface Shared {
  readonly root: string;
  readonly plan: Plan;
  readonly expected: Buffer;
  readonly both: readonly [Merging, Merging];
}

async function setUp(): Promise<Shared> {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const model = heavyModel({ layers: 2, shards: 1, extent: 768, rank: 32 });
  await writeFiles(inputs.base, baseFiles(model.base));
  await writeFiles(inputs.adapter, adapterFiles(model.adapter));
  const start = (): Merging => new Merging(inputs.base, inputs.adapter);
  const both = [start(), start()] as const;
  onTestFinished(async () => void (await Promise.all(both.map((each) => each.kill()))));
  const output = join(root, 'expected');
  const { plan } = await mergeDirectories({ ...inputs, output });
  const expected = await readFile(join(output, plan.shards[0]?.file ?? ''));
  expect(await Promise.all(both.map((each) => each.answer()))).toEqual(['ready', 'ready']);
  return { root, plan, expected, both };
}

const random = new Random(11);
const roundAt = (staging: string): Round => ({
  staging,
  delayMs: random.below(DELAY_MS_MAX),
  windowPages: random.pick([1, 7, 64, 1024]),
});

/** Whole, with the right bytes under its name and no other, and known as finished. */
async function expectWhole({ plan, expected }: Shared, staging: string, sha256?: string) {
  const shard = plan.shards[0]!;
  const directory = stagingAt(staging);
  expect(await readdir(directory.files), staging).toEqual([shard.file]);
  const bytes = await readFile(join(directory.files, shard.file));
  expect(Buffer.compare(bytes, expected), staging).toBe(0);
  const completion = await readCompletion(shard, directory, planDigest(plan));
  expect(completion, staging).toEqual({ size: shard.size, sha256 });
}

test('two processes leave a shard whole, and known as finished', {
  timeout: TIMEOUT_MS,
}, async () => {
  const shared = await setUp();
  const [one, other] = shared.both;
  for (let round = 0; round < ROUNDS; round++) {
    const staging = join(shared.root, `round-${round}`);
    const digests = await Promise.all([one.merge(roundAt(staging)), other.merge(roundAt(staging))]);
    expect(digests[1]).toBe(digests[0]);
    await expectWhole(shared, staging, digests[0]);
  }
  // The last time one of them is killed, in the middle if it is not too quick.
  const last = { staging: join(shared.root, 'last'), delayMs: 0, windowPages: 1 };
  const killed = one.merge(last);
  const finished = other.merge(last);
  const begun = async () => (await readdir(join(last.staging, 'files')).catch(() => []))[0];
  await waitFor('the shard to be begun', begun);
  await one.kill();
  await killed;
  await expectWhole(shared, last.staging, await finished);
});
