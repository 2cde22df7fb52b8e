import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Context } from '@temporalio/activity';
import { removeAbandoned } from '../conversion/conversion-store.ts';
import { isTemporary } from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import { artefactId } from './artefact-contents.ts';
import { plannedTargets } from './check-targets.ts';
import type { Dependencies } from './dependencies.ts';
import { endDiskLease } from './disk-leases.ts';
import { streamedMerge } from './streamed-merge.ts';
import type { CleanedUp, CleanUpInput } from './types.ts';
import { conversionDirectory, mergeWorkspace, reportDirectory } from './workspace.ts';

/** Small files are written within moments; one that old was left by a process that was killed. */
const TEMPORARY_AGE_MS = 10 * 60_000;

/** A target that does not answer must not hold up the others. */
const TARGET_TIMEOUT_MS = 60_000;

/** What a release that was cancelled leaves behind. */
export function createCleanUpActivities({ home, publishing }: Dependencies) {
  return {
    /**
     * Removes what nobody will go on with: temporary files, and at the targets what an unfinished
     * publication has sent. What is journalled stays, as conversions and downloads do, and is found by
     * a later run. Idempotent; what cannot be removed is told.
     */
    async cleanUp(input: CleanUpInput): Promise<CleanedUp> {
      const { workflowId = '' } = Context.current().info.workflowExecution ?? {};
      const removed: string[] = [];
      const left: string[] = [];
      const tryTo = async (what: string, work: () => Promise<readonly string[]>): Promise<void> => {
        try {
          removed.push(...(await work()));
        } catch (error) {
          left.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
        }
      };
      const { plan } = input;
      if (plan !== undefined) {
        await tryTo('the lease of the disk', async () => {
          await endDiskLease(home, plan.digest);
          return [];
        });
      }
      await tryTo('conversions', () => removeAbandoned(conversionDirectory(home)));
      for (const directory of directoriesOf(home, input, workflowId)) {
        await tryTo(directory, () => removeTemporaries(directory));
      }
      for (const [target, work] of targetsOf(input)) await tryTo(target, work);
      return { removed, ...(left.length > 0 && { left }) };
    },
  };

  function targetsOf({ recipe, inputs, plan }: CleanUpInput) {
    // Before there is a plan nothing is sent anywhere.
    if (inputs === undefined || plan === undefined) return [];
    const streamed = streamedMerge({ recipe }, inputs)?.output;
    return plannedTargets(recipe).flatMap(({ target, parts }) =>
      parts.map((part) => {
        const id = artefactId(inputs.artefact, part);
        const keepsFiles = part === 'merged' && streamed !== undefined && isStreamed(target);
        const work = async (): Promise<readonly string[]> => {
          const publisher = await createPublisher(target, publishing);
          const signal = AbortSignal.timeout(TARGET_TIMEOUT_MS);
          const options = { planDigest: plan.digest, keepsFiles, signal };
          return (await publisher.abandon?.(id, options)) ?? [];
        };
        return [`${part} at a target (${Object.keys(target)[0]})`, work] as const;
      }),
    );
  }
}

function isStreamed(target: CleanUpInput['recipe']['publish'][number]): boolean {
  return 's3' in target && target.s3.stream === true;
}

/** Of this release alone; what other releases write is theirs. */
function directoriesOf(
  home: string,
  { plan }: CleanUpInput,
  workflowId: string,
): readonly string[] {
  const reports = reportDirectory(home, workflowId);
  return plan === undefined ? [reports] : [mergeWorkspace(home, plan.digest).root, reports];
}

async function removeTemporaries(directory: string): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const entry of await entriesOf(directory)) {
    if (!entry.isFile() || !isTemporary(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const written = await stat(path).catch(() => undefined);
    if (written === undefined || Date.now() - written.mtimeMs < TEMPORARY_AGE_MS) continue;
    await rm(path, { force: true });
    removed.push(path);
  }
  return removed;
}

async function entriesOf(directory: string) {
  try {
    return await readdir(directory, { recursive: true, withFileTypes: true });
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
