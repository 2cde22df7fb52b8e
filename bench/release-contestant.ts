import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { childVariables, readEnvironment } from '../config/environment.ts';
import { ensureTemporalCli } from '../tools/temporal-cli.ts';
import { stopEmbeddedServer } from '../workers/embedded-server.ts';
import { weldline, withoutOutput } from './contestants.ts';
import type { Contestant } from './measurement.ts';
import type { BenchModel } from './model-data.ts';

export const RELEASE = 'weldline release';

/**
 * A whole release through the embedded Temporal server: merge, verification, publication to a
 * directory. The worker runs in the process of the command; its peak is the one measured.
 * @param home kept from run to run for the Temporal CLI in it; all else is removed
 */
export function releaseContestant(model: BenchModel, home: string, scratch: string): Contestant {
  const recipe = join(scratch, 'recipe.yaml');
  return {
    name: RELEASE,
    inputs: [model.base, model.adapter],
    async prepare(signal) {
      const environment = readEnvironment(childVariables({ WELDLINE_HOME: home }));
      await ensureTemporalCli({ environment, signal, onProgress: console.log });
    },
    reset: () => clean(home),
    async run(output, signal) {
      await writeFile(recipe, recipeText(model, output));
      try {
        const run = await weldline(['release', recipe, '--json'], home, signal, true);
        // Whatever else of Node takes part is the worker's, and no program of another name is.
        const { node = 0 } = run.childMemoryBytes ?? {};
        return withoutOutput(run, run.peakMemoryBytes + node);
      } finally {
        await clean(home);
      }
    },
  };
}

/** Stops a server that an interrupted run has left behind, and forgets what was released. */
async function clean(home: string): Promise<void> {
  await stopEmbeddedServer(home, { force: true });
  for (const name of ['merges', 'reports', 'cache', 'server']) {
    await rm(join(home, name), { recursive: true, force: true });
  }
}

function recipeText(model: BenchModel, target: string): string {
  return JSON.stringify({
    name: 'benchmark',
    version: '1.0.0',
    base: { model: model.base },
    adapters: [{ id: 'adapter', model: model.adapter }],
    publish: [{ directory: { path: target } }],
  });
}
