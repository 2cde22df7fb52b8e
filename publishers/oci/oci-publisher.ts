import { WeldlineError } from '../../engine/errors.ts';
import { checkWritable } from '../../remote/oci/blobs.ts';
import { nameOfPlace, type OciPlace, parsePlace } from '../../remote/oci/oci-place.ts';
import { type RegistryClient, registryClient } from '../../remote/oci/registry-client.ts';
import {
  type AliasState,
  type Artefact,
  type ArtefactId,
  artefactNameOf,
  codeOfStatus,
  type FoundArtefact,
  type MoveAlias,
  type Patience,
  type Published,
  type Publisher,
  type PublishOptions,
} from '../publisher.ts';
import { moveAlias, readAlias } from './move-alias.ts';
import { conflict } from './oci-errors.ts';
import { type Alias, locationOf, readArtefact, readRepository } from './oci-repository.ts';
import { publishArtefact } from './publish-artefact.ts';
import { pruneArtefact, withdrawArtefact } from './remove-artefact.ts';
import { tagOf } from './tags.ts';

/**
 * Artefacts as CNCF ModelPack manifests in one repository of an OCI registry, each under a tag of its
 * name; aliases are tags beside them.
 *
 * Registries let everyone move every tag and have no compare-and-swap. A version is as immutable as
 * those who may write there leave it; of two different artefacts that are published at once, one is
 * told (see `claimTag`). Pinned locations name the digest and cannot move.
 */
export class OciPublisher implements Publisher {
  readonly kind = 'oci';
  readonly holds = 'files';
  readonly name: string;
  readonly #client: RegistryClient;

  /** @param dockerConfig directory of Docker's `config.json`, which has the credentials */
  constructor(place: OciPlace, dockerConfig: string, patience: Patience) {
    this.name = nameOfPlace(place);
    this.#client = registryClient({ place, dockerConfig, patience, codeOf });
  }

  accepts(): boolean {
    return true;
  }

  async check(id: ArtefactId, planDigest: string | undefined, signal: AbortSignal): Promise<void> {
    const occupant = await readArtefact(this.#client, id, signal);
    await checkWritable(this.#client, signal);
    if (occupant.kind === 'nothing') return;
    const location = locationOf(this.#client, tagOf(artefactNameOf(id)));
    if (occupant.kind === 'other') throw conflict(location, 'which is another thing');
    if (planDigest === undefined || occupant.found.planDigest === planDigest) return;
    throw conflict(location, 'made from other inputs');
  }

  async publish(artefact: Artefact, options: PublishOptions): Promise<Published> {
    const result = await publishArtefact(this.#client, artefact, options);
    return { target: this.kind, ...result };
  }

  async find(id: ArtefactId, signal: AbortSignal): Promise<FoundArtefact | undefined> {
    const occupant = await readArtefact(this.#client, id, signal);
    return occupant.kind === 'artefact' ? occupant.found : undefined;
  }

  async list(signal: AbortSignal): Promise<readonly FoundArtefact[]> {
    const { artefacts } = await readRepository(this.#client, signal);
    return artefacts.map(({ found }) => found);
  }

  /** Needs a registry that allows deleting. What it keeps in spite of that is left to its own purge. */
  async withdraw(id: ArtefactId, signal: AbortSignal): Promise<void> {
    await withdrawArtefact(this.#client, id, signal);
  }

  /** The version goes on as a smaller manifest; its digest is another one then. */
  async prune(
    id: ArtefactId,
    { signal, isDryRun }: { signal: AbortSignal; isDryRun: boolean },
  ): Promise<number> {
    return pruneArtefact(this.#client, id, isDryRun, signal);
  }

  async readAlias(
    alias: string,
    part: string | undefined,
    signal: AbortSignal,
  ): Promise<AliasState | undefined> {
    return readAlias(this.#client, { alias, part }, signal);
  }

  async listAliases(signal: AbortSignal): Promise<readonly Alias[]> {
    const { aliases } = await readRepository(this.#client, signal);
    return aliases;
  }

  async moveAlias(move: MoveAlias, signal: AbortSignal): Promise<void> {
    await moveAlias(this.#client, move, signal);
  }
}

/**
 * @param target of a recipe
 * @throws WeldlineError `publish.rejected` for what is no repository
 */
export function openOciPublisher(
  target: { readonly repository: string; readonly insecure?: boolean },
  dockerConfig: string,
  patience: Patience,
): OciPublisher {
  const place = parsePlace(target.repository, target.insecure);
  if (place !== undefined) return new OciPublisher(place, dockerConfig, patience);
  throw new WeldlineError(
    'publish.rejected',
    `${target.repository} is no repository of a registry, such as registry.example.com/models/support.`,
  );
}

/** Registries have no conflicts of versions: one that says so is busy. */
function codeOf(status: number): WeldlineError['code'] {
  return status === 409 || status === 412 ? 'publish.unavailable' : codeOfStatus(status);
}
