/** Inputs that change on the disk after a crash in the middle of the merge, and before it goes on. */
import { mkdir, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Role } from '../../activities/types.ts';
import { statusQuery } from '../../workflows/messages.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { startMerging } from '../harness/activity-worker.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  failureOf,
  startRelease,
  startTestWorkers,
  type TestRelease,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

const FIRST = 'model-00001-of-00002.safetensors';
const SECOND = 'model-00002-of-00002.safetensors';
/** Longer than a worker here holds what it never does: each attempt waits longer than the last. */
const HEARTBEAT_TIMEOUT_MS = 60_000;
const WAIT_MS = 120_000;

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => {
  await server.stop();
});

/** Models, a home, and workers that do all but merge. */
class Case {
  readonly #name: string;
  readonly setup: ReleaseSetup;
  readonly #stop: (() => Promise<void>)[] = [];

  private constructor(name: string, setup: ReleaseSetup) {
    this.#name = name;
    this.setup = setup;
  }

  /** Waits for `work`, and ends all that it has started. */
  static async with(name: string, work: (each: Case) => Promise<void>): Promise<void> {
    const directory = join(server.directory, name);
    await mkdir(directory);
    const each = new Case(name, await setUpRelease(directory));
    try {
      await each.#startWorkers(['control']);
      await work(each);
    } finally {
      for (const stop of each.#stop) await stop();
    }
  }

  async #startWorkers(roles: readonly Role[]): Promise<void> {
    const workers = await startTestWorkers(server, this.setup.environment, roles);
    this.#stop.push(() => workers.stop());
  }

  goOn(): Promise<void> {
    return this.#startWorkers(['merge']);
  }

  start(): Promise<TestRelease> {
    const recipe = recipeOf(this.setup, { name: this.#name });
    const input = releaseInput(recipe, {
      parallelShards: 1,
      heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS,
    });
    return startRelease(server.client, input);
  }

  /** A release that has merged the first of its two shards when the last worker dies. */
  async halfMerged(): Promise<TestRelease> {
    const release = await this.start();
    const secondBegun = Promise.withResolvers<void>();
    const die = await startMerging(server, this.setup.environment, {
      holds: (_, { shard }: { readonly shard: number }) => {
        if (shard > 0) secondBegun.resolve();
        return shard > 0;
      },
    });
    // They are merged one after the other. A worker that stops does not end what comes in that moment.
    await secondBegun.promise;
    await die();
    return release;
  }

  async expected(): Promise<ReadonlyMap<string, string>> {
    const { base, adapter, directory } = this.setup;
    const output = join(directory, 'expected');
    await mergeDirectories({ base, adapter, output });
    return checkpointDigests(output);
  }

  published(): Promise<string[]> {
    return readdir(this.setup.target).catch(() => []);
  }

  inBase(file: string): string {
    return join(this.setup.base, file);
  }

  /** The release that is made of what is there now; it must have nothing of the one before. */
  async expectMadeAnew(before: string | undefined): Promise<void> {
    const { publications, planDigest } = await (await this.start()).result();
    expect(planDigest).not.toBe(before);
    expect(await checkpointDigests(publications[0]?.location ?? '')).toEqual(await this.expected());
  }
}

function mergeOf({ workflowId }: TestRelease): WorkflowHandle {
  return server.client.workflow.getHandle(`${workflowId}/merge`);
}

/** Turns over the bits of a file's last byte. */
async function change(path: string): Promise<void> {
  const file = await open(path, 'r+');
  const { size } = await file.stat();
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
  await file.write(Buffer.from([buffer[0]! ^ 0x81]), 0, 1, size - 1);
  await file.close();
}

describe('what changes between a crash and going on', { timeout: 240_000 }, () => {
  it.each([
    ['base', (each: Case) => each.inBase(SECOND)],
    ['base-that-is-merged', (each: Case) => each.inBase(FIRST)],
    ['adapter', ({ setup }: Case) => join(setup.adapter, 'adapter_model.safetensors')],
  ])('%s: the release ends, and another is made of what is there', (name, path) =>
    Case.with(`changed-${name}`, async (each) => {
      const release = await each.halfMerged();
      const { plan } = await release.query(statusQuery);
      await change(path(each));
      await each.goOn();
      const { code, message } = await failureOf(release);
      expect(code).toBe('merge.input-changed');
      expect(message).toContain(path(each));
      expect(await each.published()).toEqual([]);
      await each.expectMadeAnew(plan?.digest);
    }),
  );

  it('a base that is cut off: the release ends, and the next one before it begins', () =>
    Case.with('cut-off', async (each) => {
      const release = await each.halfMerged();
      const path = each.inBase(SECOND);
      await truncate(path, (await stat(path)).size - 100);
      await each.goOn();
      expect(await failureOf(release)).toMatchObject({ code: 'merge.input-changed' });
      const { code, message } = await failureOf(await each.start());
      expect(code).toBe('safetensors.truncated');
      expect(message).toContain(SECOND);
      expect(await each.published()).toEqual([]);
    }));

  it('a base that cannot be read for a while: it is tried again until it can', () =>
    Case.with('unreadable', async (each) => {
      const release = await each.halfMerged();
      const path = each.inBase(SECOND);
      const away = `${path}.away`;
      await rename(path, away);
      // Reading a directory fails as reading a bad sector does, and anybody can have one.
      await mkdir(path);
      await each.goOn();
      const failed = async (): Promise<true | undefined> => {
        const { raw } = await mergeOf(release).describe();
        const failures = (raw.pendingActivities ?? []).map(({ lastFailure }) => lastFailure);
        const codes = failures.map((failure) => failure?.applicationFailureInfo?.type);
        return codes.includes('disk.read-failed') || undefined;
      };
      await waitFor('an attempt that failed', failed, WAIT_MS);
      await rm(path, { recursive: true });
      await rename(away, path);
      const { publications } = await release.result();
      const digests = await checkpointDigests(publications[0]?.location ?? '');
      expect(digests).toEqual(await each.expected());
    }));
});
