import { randomBytes } from 'node:crypto';
import { access, constants, readdir, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '../../engine/durable-files.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import {
  type AliasState,
  type Artefact,
  type ArtefactId,
  artefactNameOf,
  type FoundArtefact,
  type MoveAlias,
  type Published,
  type Publisher,
  type PublishOptions,
} from '../publisher.ts';
import { type Alias, listAliases, moveAlias, readAlias } from './alias-links.ts';
import { discard, removeAttempts } from './attempt-directory.ts';
import { conflict, toPublishError } from './directory-errors.ts';
import { pruneArtefact } from './prune-artefact.ts';
import { publishArtefact } from './publish-artefact.ts';
import { absentAs, occupantOf } from './read-artefact.ts';

/** Artefacts as directories below one directory; aliases as symbolic links beside them. */
export class DirectoryPublisher implements Publisher {
  readonly kind = 'directory';
  readonly holds = 'files';
  readonly name: string;

  /** @param path absolute; made when the first artefact is published */
  constructor(path: string) {
    this.name = path;
  }

  accepts(): boolean {
    return true;
  }

  async check(id: ArtefactId, planDigest: string | undefined): Promise<void> {
    await checkWritable(this.name);
    const location = this.#locationOf(id);
    const occupant = await occupantOf(location);
    if (occupant.kind === 'nothing') return;
    if (occupant.kind === 'other') throw conflict(location, 'which is not a release of weldline');
    if (planDigest === undefined || occupant.record.planDigest === planDigest) return;
    throw conflict(location, 'made from other inputs');
  }

  async publish(artefact: Artefact, options: PublishOptions): Promise<Published> {
    const location = this.#locationOf(artefact);
    const result = await publishArtefact(this.name, artefact, options);
    return { target: this.kind, location, pinned: location, ...result };
  }

  async find(id: ArtefactId): Promise<FoundArtefact | undefined> {
    const location = this.#locationOf(id);
    const occupant = await occupantOf(location);
    if (occupant.kind !== 'artefact') return undefined;
    const { record, isPruned } = occupant;
    if (artefactNameOf(record) !== artefactNameOf(id)) return undefined;
    const { manifestDigest, planDigest, createdAt, name } = record;
    const { release, part } = id;
    return {
      ...{ release, ...(part && { part }), location, pinned: location },
      ...{ manifestDigest, planDigest, createdAt, isPruned, ...(name && { name }) },
    };
  }

  async list(): Promise<readonly FoundArtefact[]> {
    const found: FoundArtefact[] = [];
    for (const entry of await absentAs([], readdir(this.name, { withFileTypes: true }))) {
      if (!entry.isDirectory() || entry.name.startsWith('.')) continue;
      const occupant = await occupantOf(join(this.name, entry.name));
      if (occupant.kind !== 'artefact' || artefactNameOf(occupant.record) !== entry.name) continue;
      const artefact = await this.find(occupant.record);
      if (artefact !== undefined) found.push(artefact);
    }
    return found;
  }

  async withdraw(id: ArtefactId): Promise<void> {
    const location = this.#locationOf(id);
    const artefact = artefactNameOf(id);
    try {
      if ((await this.find(id)) !== undefined) {
        await this.#requireNoAlias(id, location);
        const left = join(this.name, `.${artefact}.${randomBytes(6).toString('hex')}.left`);
        await rename(location, left);
        // Pointed at in this moment, it comes back.
        await this.#requireNoAlias(id, location).catch(async (error: unknown) => {
          await rename(left, location);
          throw error;
        });
        await syncDirectory(this.name);
        await discard(left);
      }
      await removeAttempts(this.name, artefact);
    } catch (error) {
      throw toPublishError(error, location);
    }
  }

  async abandon(id: ArtefactId): Promise<readonly string[]> {
    try {
      const removed = await removeAttempts(this.name, artefactNameOf(id));
      return removed.map((path) => `${path}: an unfinished copy`);
    } catch (error) {
      throw toPublishError(error, this.#locationOf(id));
    }
  }

  async prune(id: ArtefactId, { isDryRun }: { readonly isDryRun: boolean }): Promise<number> {
    const location = this.#locationOf(id);
    const occupant = await occupantOf(location);
    if (occupant.kind !== 'artefact') throw notPublished(location);
    try {
      const { kind } = occupant.record;
      return await pruneArtefact(this.name, artefactNameOf(id), kind, isDryRun, () =>
        this.#requireNoAlias(id, location),
      );
    } catch (error) {
      throw toPublishError(error, location);
    }
  }

  readAlias(alias: string, part: string | undefined): Promise<AliasState | undefined> {
    return readAlias(this.name, { alias, part });
  }

  listAliases(): Promise<readonly Alias[]> {
    return listAliases(this.name);
  }

  async moveAlias(move: MoveAlias): Promise<void> {
    const id = { release: move.to, ...(move.part && { part: move.part }) };
    const found = await this.find(id);
    if (found === undefined) throw notPublished(this.#locationOf(id));
    if (found.isPruned) throw notPublished(found.location, 'its weights were pruned');
    await moveAlias(this.name, move);
  }

  #locationOf(id: ArtefactId): string {
    return join(this.name, artefactNameOf(id));
  }

  async #requireNoAlias({ release, part }: ArtefactId, location: string): Promise<void> {
    const aliases = await this.listAliases();
    const named = aliases.filter((alias) => alias.release === release && alias.part === part);
    if (named.length === 0) return;
    throw new WeldlineError(
      'publish.aliased',
      `${location} is what ${named.map(({ alias }) => alias).join(' and ')} points at. Move the ` +
        'alias to another release first (weldline promote).',
    );
  }
}

/**
 * Checks that releases can be published here, before hours are spent on one.
 * @throws WeldlineError `publish.not-writable`
 */
export async function checkWritable(target: string): Promise<void> {
  try {
    // With the dot, a file in the place of the directory is an error too.
    await access(`${target}/.`, constants.W_OK);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' && dirname(target) !== target) {
      return checkWritable(dirname(target));
    }
    throw toPublishError(error, target);
  }
}

function notPublished(location: string, why = 'there is no release'): WeldlineError {
  return new WeldlineError(
    'publish.not-found',
    `${location}: ${why}. Publish it first (weldline release), or name another release.`,
  );
}
