import { join } from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import { promote } from '../publishers/alias-moves.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import type { ArtefactFile, Published, Publisher } from '../publishers/publisher.ts';
import { artefactId } from './artefact-contents.ts';
import type { Dependencies } from './dependencies.ts';
import { factsOfRelease } from './facts-of-release.ts';
import { withHeartbeat } from './heartbeat.ts';
import { countBytes } from './measures.ts';
import type { MoveAliasesInput, MovedAlias, MovedAliases, PublishInput } from './quality-types.ts';
import { releaseReport } from './release-report.ts';
import { releasedArtefact } from './released-artefact.ts';
import type { Publication } from './types.ts';

/** publish: a judged artefact goes to its targets, and aliases follow it. */
export function createPublishActivities(dependencies: Dependencies) {
  const { home, access, publishing } = dependencies;
  const publisherOf = async ({ recipe, target }: Pick<PublishInput, 'recipe' | 'target'>) => {
    const wanted = recipe.publish[target];
    if (wanted === undefined) throw new RangeError(`the recipe has no target ${target}`);
    return { publisher: await createPublisher(wanted, publishing), wanted };
  };

  return {
    /** Publishes to one target of the recipe. Idempotent; what differs is a conflict. */
    async publish(input: PublishInput): Promise<Publication> {
      return withHeartbeat('publish', async (report, signal) => {
        const { part, publishedAt = [] } = input;
        const { publisher } = await publisherOf(input);
        const facts = await factsOfRelease(home, input);
        const readReport = () => releaseReport(home, input, facts);
        const { artefact, judged } = await releasedArtefact(
          ...([dependencies, input, facts, readReport, signal] as const),
        );
        const published = await publisher.publish(artefact, {
          signal,
          onProgress: report,
          publishedAt: publishedAt.map(toPublished),
        });
        countBytes('weldline_published_bytes', published.bytesSent, { target: publisher.kind });
        if (publisher.kind === 'directory' && published.existed) {
          await requireIntact(published.location, judged, signal);
        }
        // An attempt that was interrupted, or a stage that was resumed, finds what this run published.
        const existed =
          published.existed &&
          (await publisher.find(artefact, signal))?.createdAt !== input.run.startedAt;
        return { ...published, existed, ...(part === undefined ? {} : { part }) };
      });
    },

    /**
     * Moves the target's aliases to what was just published. An artefact that was there before moves
     * none that points elsewhere: whoever moved that on has had a reason. Nor does one that waited
     * for a person while a later release was made.
     */
    async moveAliases(input: MoveAliasesInput): Promise<MovedAliases> {
      return withHeartbeat('publish', async (_report, signal) => {
        const { publisher, wanted } = await publisherOf(input);
        const id = artefactId(input.release, input.part);
        const { release, part } = id;
        const moved: MovedAlias[] = [];
        const warnings: string[] = [];
        // A run that was interrupted finds what it published itself.
        const found = await publisher.find(id, signal);
        const isNew = found?.createdAt === input.startedAt;
        for (const alias of wanted.aliases ?? []) {
          const from = await publisher.readAlias(alias, part, signal);
          if (from?.release === release) continue;
          if (from !== undefined && !isNew) {
            warnings.push(
              `${publisher.name}: ${alias} stays at ${from.release}, since ${release} was published ` +
                `before. Move it by "weldline promote" if that is what you want.`,
            );
            continue;
          }
          if (from !== undefined && (await isLater(publisher, from.release, input, signal))) {
            warnings.push(
              `${publisher.name}: ${alias} stays at ${from.release}, which was begun after ${release}. ` +
                'Move it by "weldline promote" if that is what you want.',
            );
            continue;
          }
          await promote(publisher, id, alias, signal);
          moved.push({ alias, target: publisher.name, ...(part === undefined ? {} : { part }) });
        }
        return { moved, warnings };
      });
    },
  };

  /** A version stands for bytes, not for a name: what was there already is looked at. */
  async function requireIntact(
    location: string,
    judged: readonly ArtefactFile[],
    signal: AbortSignal,
  ): Promise<void> {
    const changed = await access.digests.findChanged(location, judged, signal);
    await access.digests.save();
    if (changed === undefined) return;
    throw new WeldlineError(
      'verify.digest-mismatch',
      `${join(location, changed)} is not the file that was published. Remove ${location} and ` +
        'release again.',
    );
  }
}

async function isLater(
  publisher: Publisher,
  other: string,
  { part, startedAt }: MoveAliasesInput,
  signal: AbortSignal,
): Promise<boolean> {
  const found = await publisher.find(artefactId(other, part), signal);
  return found !== undefined && Date.parse(found.createdAt) > Date.parse(startedAt);
}

function toPublished(publication: Publication): Published {
  const { location, existed, target = 'directory', pinned = location, bytesSent = 0 } = publication;
  return { target, location, pinned, existed, bytesSent };
}
