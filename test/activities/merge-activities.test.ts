import { createHash } from 'node:crypto';
import { appendFile, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CancelledFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { describe, expect, it } from 'vitest';
import { type Activities, createActivities } from '../../activities/create-activities.ts';
import type { ActivityProgress } from '../../activities/heartbeat.ts';
import type { PlanReference, ResolvedInputs, Roots } from '../../activities/types.ts';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { createLogger } from '../../workers/logger.ts';
import { dependencies } from '../../workers/main.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type ReleaseSetup,
  recipeOf,
  type SetupOptions,
  setUpRelease,
} from '../harness/release-setup.ts';

interface Prepared {
  readonly setup: ReleaseSetup;
  readonly activities: Activities;
  readonly inputs: ResolvedInputs;
  readonly roots: Roots;
  readonly plan: PlanReference;
}

/** Runs one activity as a worker would, keeping its heartbeats. */
async function run<T>(
  work: () => Promise<T>,
  onHeartbeat: (progress: ActivityProgress, environment: MockActivityEnvironment) => void = () =>
    undefined,
): Promise<T> {
  // Failures are expected here; the default logger would print each.
  const environment = new MockActivityEnvironment(undefined, { logger: createLogger('error') });
  environment.on('heartbeat', (progress: ActivityProgress) => onHeartbeat(progress, environment));
  return environment.run(work);
}

async function prepare(options: SetupOptions = {}): Promise<Prepared> {
  const setup = await setUpRelease(await temporaryDirectory(), options);
  const activities = createActivities(dependencies(setup.environment));
  const { recipe, digest } = recipeOf(setup);
  const context = { recipe, recipeDigest: digest };
  const inputs = await run(() => activities.resolveInputs(context));
  const base = await run(() => activities.fetchInput(inputs.base));
  const tone = await run(() => activities.fetchInput(inputs.adapter));
  const roots = { base, tone };
  const plan = await run(() => activities.plan(context, inputs, roots));
  return { setup, activities, inputs, roots, plan };
}

const mergeOf = ({ activities, plan, roots }: Prepared, shard = 0) =>
  activities.mergeShard({ planDigest: plan.digest, shard, roots, threads: 1 });

describe('merging a shard as an activity', () => {
  it('reports tensor and bytes, hears its cancellation, keeps what it has and goes on with it', async () => {
    const model = heavyModel({ layers: 10, shards: 1, extent: 2048, rank: 1536 });
    const prepared = await prepare(model);
    const workspace = mergeWorkspace(prepared.setup.home, prepared.plan.digest);
    const beats: ActivityProgress[] = [];
    const cancelled = run(
      () => mergeOf(prepared),
      (progress, environment) => {
        beats.push(progress);
        if (progress.item !== '') environment.cancel('CANCELLED');
      },
    );
    await expect(cancelled).rejects.toBeInstanceOf(CancelledFailure);
    const last = beats.at(-1);
    expect(last).toMatchObject({ stage: 'merge', bytesTotal: prepared.plan.bytesTotal });
    expect(last?.item).toMatch(/^model\.layers\.\d+\.self_attn\.[qo]_proj\.weight$/);
    expect(last?.bytesDone).toBeLessThan(prepared.plan.bytesTotal);
    expect(await readdir(workspace.staging.files)).toEqual(['model.safetensors.partial']);
    const journal = await readFile(
      join(workspace.staging.journals, 'model.safetensors.jsonl'),
      'utf8',
    );
    expect(journal.trimEnd().split('\n').length).toBeGreaterThan(1);

    const resumed: number[] = [];
    const done = await run(
      () => mergeOf(prepared),
      ({ bytesDone }) => resumed.push(bytesDone),
    );
    expect(done.size).toBe(prepared.plan.bytesTotal);
    // Nothing that was reported done was done again.
    expect(resumed.find((bytes) => bytes > 0)).toBeGreaterThanOrEqual(last?.bytesDone ?? Infinity);
    const { digest } = prepared.plan;
    const fresh = await prepare(model);
    expect(fresh.plan.digest).toBe(digest);
    expect(await run(() => mergeOf(fresh))).toEqual(done);
  });

  it('finds a shard that is merged, and a merge that is sealed', async () => {
    const prepared = await prepare();
    const workspace = mergeWorkspace(prepared.setup.home, prepared.plan.digest);
    const first = [await run(() => mergeOf(prepared, 0)), await run(() => mergeOf(prepared, 1))];
    const before = await stat(join(workspace.staging.files, 'model-00001-of-00002.safetensors'));
    expect(await run(() => mergeOf(prepared, 0))).toEqual(first[0]);
    const after = await stat(join(workspace.staging.files, 'model-00001-of-00002.safetensors'));
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);

    const { recipe, digest: recipeDigest } = recipeOf(prepared.setup);
    const { activities, inputs, roots, plan } = prepared;
    const input = { recipe, recipeDigest, inputs, planDigest: plan.digest, roots, shards: first };
    const sealed = await run(() => activities.seal(input));
    expect(await run(() => activities.seal(input))).toEqual(sealed);
    expect(await run(() => mergeOf(prepared, 1))).toEqual(first[1]);
    await expect(readdir(workspace.staging.root)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('refuses inputs that changed since they were planned', async () => {
    const prepared = await prepare();
    await appendFile(join(prepared.setup.base, 'model-00001-of-00002.safetensors'), 'x');
    await expect(run(() => mergeOf(prepared))).rejects.toMatchObject({
      type: 'merge.input-changed',
      nonRetryable: true,
    });
  });

  it('refuses an input that changed but for its size', async () => {
    const prepared = await prepare();
    const file = await open(join(prepared.setup.base, 'model-00001-of-00002.safetensors'), 'r+');
    const { size } = await file.stat();
    await file.write(Buffer.from([1]), 0, 1, size - 1);
    await file.close();
    await expect(run(() => mergeOf(prepared))).rejects.toMatchObject({
      type: 'merge.input-changed',
      nonRetryable: true,
    });
  });

  it('refuses a plan that was changed or is gone', async () => {
    const prepared = await prepare();
    const workspace = mergeWorkspace(prepared.setup.home, prepared.plan.digest);
    const text = await readFile(workspace.plan, 'utf8');
    expect(createHash('sha256').update(text).digest('hex')).toBe(prepared.plan.digest);
    await writeFile(workspace.plan, text.replace('"bfloat16"', '"float16"').replace('BF16', 'F16'));
    await expect(run(() => mergeOf(prepared))).rejects.toMatchObject({ type: 'plan.invalid' });
    await rm(workspace.plan);
    await expect(run(() => mergeOf(prepared))).rejects.toMatchObject({ type: 'source.not-found' });
  });
});

describe('verifying as an activity', () => {
  it('finds one flipped bit, whatever the file', async () => {
    const { activities, plan, roots, setup } = await prepareSealed();
    const { sealed } = mergeWorkspace(setup.home, plan.digest);
    await run(() => activities.verify(plan.digest, roots));
    for (const [name, bytes] of await readFiles(sealed)) {
      if (name === 'weldline.json') continue;
      const flipped = Buffer.from(bytes);
      flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
      await writeFile(join(sealed, name), flipped);
      await expect(
        run(() => activities.verify(plan.digest, roots)),
        name,
      ).rejects.toMatchObject({
        type: 'verify.digest-mismatch',
        nonRetryable: true,
      });
      await writeFile(join(sealed, name), bytes);
    }
  });
});

async function prepareSealed(): Promise<Prepared> {
  const prepared = await prepare();
  const { activities, inputs, roots, plan, setup } = prepared;
  const shards = [await run(() => mergeOf(prepared, 0)), await run(() => mergeOf(prepared, 1))];
  const { recipe, digest: recipeDigest } = recipeOf(setup);
  const input = { recipe, recipeDigest, inputs, planDigest: plan.digest, roots, shards };
  await run(() => activities.seal(input));
  return prepared;
}
