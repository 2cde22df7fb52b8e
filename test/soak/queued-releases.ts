/** Many releases at once, for few workers. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { type ReleaseSetup, recipeOf, releaseInput } from '../harness/release-setup.ts';
import { startRelease } from '../harness/running-release.ts';
import type { TestServer } from '../harness/temporal-server.ts';

export interface QueuedRelease {
  readonly name: string;
  /** What its target has: one artefact, and the alias that leads to it. */
  readonly published: readonly string[];
  readonly existed: boolean;
  readonly digests: ReadonlyMap<string, string>;
}

/** Longer than a worker with all of them to do may be silent for each. */
const HEARTBEAT_TIMEOUT_MS = 60_000;

/** Starts so many releases of the same models, each with a target of its own, and waits for all. */
export async function queueReleases(
  server: TestServer,
  setup: ReleaseSetup,
  count: number,
): Promise<readonly QueuedRelease[]> {
  const releases = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const name = `queued-${index}`;
      const target = join(setup.target, name);
      const recipe = recipeOf(setup, { name, targets: [target], aliases: ['latest'] });
      const input = releaseInput(recipe, { heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS });
      return { name, target, release: await startRelease(server.client, input) };
    }),
  );
  return Promise.all(
    releases.map(async ({ name, target, release }) => {
      const { publications } = await release.result();
      const [publication] = publications;
      return {
        name,
        published: (await readdir(target)).filter((each) => !each.startsWith('.')).sort(),
        existed: publication?.existed ?? true,
        digests: await checkpointDigests(publication?.location ?? ''),
      };
    }),
  );
}
