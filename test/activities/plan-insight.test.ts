import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { measurePlan, readInsight } from '../../activities/plan-insight.ts';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { compileKernel } from '../../kernels/index.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { planDirectories, writeFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../doubles/tiny-model.ts';

test('what was measured lies beside the plan, and a plan of an earlier version has none', async () => {
  const home = await temporaryDirectory();
  const [base, adapter] = [join(home, 'base'), join(home, 'adapter')];
  await writeFiles(base, baseFiles(tinyBase()));
  await writeFiles(adapter, adapterFiles(tinyAdapter()));
  const plan = await planDirectories({ base, adapter });
  const workspace = mergeWorkspace(home, 'd'.repeat(64));
  await mkdir(workspace.root, { recursive: true });
  await writeFile(workspace.plan, '{}');
  expect(await readInsight(workspace)).toBeUndefined();
  const models = { base: await openModelDirectory(base), a: await openModelDirectory(adapter) };
  const insight = await measurePlan(plan, models, await compileKernel(), workspace, {
    base: 'local',
  });
  expect(insight).toMatchObject({ retention: { merged: 4, measured: 4 }, conflicts: null });
  expect(await readInsight(workspace)).toEqual(insight);
  // Of every tensor, for the report's heat maps, in a few digits.
  expect(insight.tensors?.map(({ name }) => name)).toEqual(
    expect.arrayContaining(insight.retention?.worst.map(({ name }) => name) ?? []),
  );
  const worst = insight.retention?.worst[0];
  const kept = insight.tensors?.find(({ name }) => name === worst?.name);
  expect(1 - (kept?.retention ?? 0)).toBeCloseTo(1 - (worst?.retention ?? 0), 6);
  expect(`${kept?.relativeSize}`).toMatch(/^0\.0*\d{1,4}$/);
});
