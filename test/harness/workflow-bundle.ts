import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLogger } from '../../workers/logger.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';

/** Bundling takes seconds, so a checkout does it once for each state of the workflows. */
const SHARED_CACHE = fileURLToPath(new URL('../../node_modules/.cache/weldline', import.meta.url));

/** Gives a home the bundle that it would otherwise make for itself. */
export async function shareWorkflowBundle(home: string): Promise<void> {
  const shared = join(SHARED_CACHE, 'cache');
  await loadWorkflowBundle(shared, createLogger('error'));
  const cache = join(home, 'cache');
  await mkdir(cache, { recursive: true });
  for (const name of await readdir(shared)) {
    if (/^workflows-[0-9a-f]+\.js$/.test(name))
      await copyFile(join(shared, name), join(cache, name));
  }
}
