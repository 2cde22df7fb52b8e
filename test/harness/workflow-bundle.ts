import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isTemporary } from '../../engine/durable-files.ts';
import { createLogger } from '../../workers/logger.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';

/** Bundling takes seconds, so a checkout does it once for each state of the workflows. */
export const SHARED_BUNDLES = fileURLToPath(
  new URL('../../node_modules/.cache/weldline/bundles', import.meta.url),
);

/** Gives a home the bundle that it would otherwise make for itself. */
export async function shareWorkflowBundle(home: string): Promise<void> {
  await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'));
  const cache = join(home, 'cache');
  await mkdir(cache, { recursive: true });
  for (const name of await readdir(SHARED_BUNDLES)) {
    // Another process may be writing one.
    if (isTemporary(name)) continue;
    await copyFile(join(SHARED_BUNDLES, name), join(cache, name));
  }
}
