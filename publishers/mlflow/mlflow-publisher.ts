import { WeldlineError } from '../../engine/errors.ts';
import type {
  AliasState,
  Artefact,
  ArtefactId,
  FoundArtefact,
  MoveAlias,
  Patience,
  Published,
  Publisher,
  PublishOptions,
} from '../publisher.ts';
import { historyAt, weldlineAlias, writeAlias } from './mlflow-aliases.ts';
import { MlflowClient, type ModelVersion } from './mlflow-client.ts';
import { artefactOf, idTags, runFacts, TAG, versionTags } from './mlflow-facts.ts';

export interface MlflowTarget {
  readonly model: string;
  readonly trackingUri: string;
  /** Header; of the address if absent. */
  readonly authorization?: string | undefined;
  /** Kind of the target that versions point at. */
  readonly source?: 'hub' | 's3' | 'oci';
}

/** Kinds of targets whose addresses MLflow keeps, the likeliest to be read by others first. */
const SOURCES = ['hub', 's3', 'oci'] as const;

/** What was found of an artefact. */
interface Registered {
  readonly version: ModelVersion;
  readonly found: FoundArtefact;
}

/**
 * Registers artefacts as versions of a model in MLflow, a registered model for each part. A version
 * points at where another target holds the files, and at a run with parameters and scores.
 *
 * Making the version, with its tags, is the commit. MLflow counts versions and lets two have the same
 * tags, so of several versions for one artefact the first counts, and whoever made another takes it
 * back. Moving an alias knows no condition: of two who move one at the same moment from two processes,
 * the later one wins.
 */
export class MlflowPublisher implements Publisher {
  readonly kind = 'mlflow';
  readonly holds = 'references';
  readonly name: string;
  readonly #client: MlflowClient;
  readonly #model: string;
  readonly #source: MlflowTarget['source'];
  /** Changes of this process come one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(target: MlflowTarget, patience: Patience) {
    this.#client = new MlflowClient(target.trackingUri, target.authorization, patience);
    this.#model = target.model;
    this.#source = target.source;
    this.name = `${this.#client.origin}/#/models/${encodeURIComponent(target.model)}`;
  }

  accepts(): boolean {
    return true;
  }

  async check(id: ArtefactId, planDigest: string | undefined, signal: AbortSignal): Promise<void> {
    const found = await this.find(id, signal);
    if (found === undefined || planDigest === undefined) return;
    if (found.planDigest !== planDigest) throw this.#conflict(found);
  }

  async publish(artefact: Artefact, options: PublishOptions): Promise<Published> {
    const { signal, onProgress } = options;
    signal.throwIfAborted();
    onProgress({ item: this.#registered(artefact), bytesDone: 0, bytesTotal: 0 });
    signal.throwIfAborted();
    return this.#inTurn(async () => {
      const there = await this.#find(artefact, signal);
      if (there !== undefined) return this.#published(artefact, there.found, true);
      const source = this.#sourceOf(options.publishedAt);
      const name = this.#registered(artefact);
      const facts = runFacts(this.#model, artefact);
      const runId = await this.#client.ensureRun(this.#model, facts, signal);
      const tags = versionTags(this.#model, artefact);
      await this.#create({ name, source, runId, tags }, artefact, signal);
      return this.#settle(artefact, runId, signal);
    });
  }

  async find(id: ArtefactId, signal: AbortSignal): Promise<FoundArtefact | undefined> {
    return (await this.#find(id, signal))?.found;
  }

  async list(signal: AbortSignal): Promise<readonly FoundArtefact[]> {
    return (await this.#all({ [TAG.model]: this.#model }, signal)).map(({ found }) => found);
  }

  async withdraw(id: ArtefactId, signal: AbortSignal): Promise<void> {
    const all = await this.#versionsOf(id, signal);
    const aliases = all.length === 0 ? [] : await this.listAliases(signal);
    const pointing = aliases.find((alias) => isSame(alias, id));
    if (pointing !== undefined) {
      throw new WeldlineError(
        'publish.aliased',
        `The alias ${pointing.alias} of ${this.name} points at ${id.release}. Point it at another ` +
          'release first (weldline promote).',
      );
    }
    // The first one counts, so it goes last: none behind it may come up in its place.
    for (const { version } of all.toReversed()) await this.#remove(version, signal);
  }

  async readAlias(
    alias: string,
    part: string | undefined,
    signal: AbortSignal,
  ): Promise<AliasState | undefined> {
    const aliases = await this.#aliasesOf(part, signal);
    const found = aliases.find((each) => each.alias === alias);
    return found && { release: found.release, history: found.history };
  }

  async listAliases(
    signal: AbortSignal,
  ): Promise<readonly (AliasState & { readonly alias: string; readonly part?: string })[]> {
    const parts = new Set((await this.list(signal)).map(({ part }) => part));
    const lists = [];
    for (const part of parts) lists.push(await this.#aliasesOf(part, signal));
    return lists.flat();
  }

  async moveAlias(move: MoveAlias, signal: AbortSignal): Promise<void> {
    const { alias, part, to, from, history } = move;
    await this.#inTurn(async () => {
      const id = { release: to, ...(part !== undefined && { part }) };
      const target = await this.#find(id, signal);
      if (target === undefined) {
        throw new WeldlineError(
          'publish.not-found',
          `${this.name} has no release ${to}${part === undefined ? '' : ` with ${part}`}, so the ` +
            `alias ${alias} cannot point at it. Publish it there first.`,
        );
      }
      const now = await this.readAlias(alias, part, signal);
      if (!isSameState(now, from)) {
        throw new WeldlineError(
          'publish.alias-moved',
          `Somebody else has moved the alias ${alias} of ${this.name}: it points at ` +
            `${now?.release ?? 'nothing'} now. Look whether that is as it should be, and run again.`,
        );
      }
      const { name, version } = target.version;
      const next = { release: to, history };
      await writeAlias(this.#client, name, { alias, version, now, next }, signal);
    });
  }

  /** Asks for a version, and looks whether it was made where the answer does not say so. */
  async #create(
    made: Omit<ModelVersion, 'version'>,
    artefact: Artefact,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await this.#client.createVersion(made, signal);
    } catch (error) {
      signal.throwIfAborted();
      const isUnclear = error instanceof WeldlineError && error.code === 'publish.unavailable';
      if (!isUnclear || (await this.#find(artefact, signal)) === undefined) throw error;
    }
  }

  /** The version that counts, after ours was made; ours is taken back if it is another. */
  async #settle(artefact: Artefact, runId: string, signal: AbortSignal): Promise<Published> {
    const [first, ...others] = await this.#versionsOf(artefact, signal);
    if (first === undefined) {
      throw new WeldlineError(
        'publish.unavailable',
        `${this.name}: the version of ${artefact.release} cannot be found after it was made. Look at ` +
          "the server's log, and run again.",
      );
    }
    for (const { version } of others) {
      if (version.runId === runId) await this.#remove(version, signal, first.version.runId);
    }
    return this.#published(artefact, first.found, first.version.runId !== runId);
  }

  #published(artefact: Artefact, found: FoundArtefact, existed: boolean): Published {
    if (found.manifestDigest !== artefact.manifestDigest) throw this.#conflict(found);
    const { location, pinned } = found;
    return { target: this.kind, location, pinned, existed, bytesSent: 0 };
  }

  async #remove(version: ModelVersion, signal: AbortSignal, keptRun?: string): Promise<void> {
    await this.#client.deleteVersion(version.name, version.version, signal);
    const { runId } = version;
    if (runId !== undefined && runId !== keptRun) await this.#client.deleteRun(runId, signal);
  }

  async #find(id: ArtefactId, signal: AbortSignal): Promise<Registered | undefined> {
    return (await this.#versionsOf(id, signal))[0];
  }

  /** All versions for an artefact, the first one first. */
  async #versionsOf(id: ArtefactId, signal: AbortSignal): Promise<readonly Registered[]> {
    const versions = await this.#versions(idTags(this.#model, id), signal);
    return versions.filter(({ found }) => isSame(found, id));
  }

  /** The first version for each artefact. */
  async #all(tags: Record<string, string>, signal: AbortSignal): Promise<readonly Registered[]> {
    const first = new Map<string, Registered>();
    for (const each of await this.#versions(tags, signal)) {
      const { name } = each.version;
      const key = `${name}/${each.found.release}`;
      if (!first.has(key)) first.set(key, each);
    }
    return [...first.values()];
  }

  async #versions(
    tags: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<readonly Registered[]> {
    const versions = await this.#client.versions(tags, signal);
    return versions
      .toSorted((one, other) => one.version - other.version)
      .flatMap((version) => {
        const found = artefactOf(version);
        const isOurs = found !== undefined && version.name === this.#registered(found);
        return isOurs ? [{ version, found }] : [];
      });
  }

  async #aliasesOf(part: string | undefined, signal: AbortSignal) {
    const name = this.#registered({ release: '', ...(part !== undefined && { part }) });
    const model = await this.#client.model(name, signal);
    if (model === undefined || model.aliases.size === 0) return [];
    const tags = { [TAG.model]: this.#model, ...(part !== undefined && { [TAG.part]: part }) };
    const all = await this.#versions(tags, signal);
    return [...model.aliases].flatMap(([alias, number]) => {
      const to = all.find(({ version }) => version.name === name && version.version === number);
      if (to === undefined) return [];
      const { release } = to.found;
      const ours = weldlineAlias(alias);
      const history = historyAt(model, ours, release);
      return [{ alias: ours, release, history, ...(part !== undefined && { part }) }];
    });
  }

  /** The registered model for the versions of a part. */
  #registered({ part }: ArtefactId): string {
    return part === undefined ? this.#model : `${this.#model}-${part}`;
  }

  #sourceOf(publishedAt: readonly Published[]): string {
    const wanted = this.#source === undefined ? SOURCES : [this.#source];
    for (const kind of wanted) {
      const place = publishedAt.find(({ target }) => target === kind);
      if (place !== undefined) return place.pinned;
    }
    throw new WeldlineError(
      'publish.rejected',
      `MLflow registers where a model is, and this one is published neither on ${wanted.join(' nor ')}. ` +
        'Add such a target to the recipe, or let it take this artefact (artefacts).',
    );
  }

  #conflict(found: FoundArtefact): WeldlineError {
    return new WeldlineError(
      'publish.conflict',
      `${found.location} at ${this.#client.origin} is ${found.release} already, made from other ` +
        'inputs. A version is published once: raise "version" in the recipe, or delete the version.',
    );
  }

  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(change);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function isSame(one: ArtefactId, other: ArtefactId): boolean {
  return one.release === other.release && one.part === other.part;
}

function isSameState(one: AliasState | undefined, other: AliasState | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.release === other.release && one.history.join('\n') === other.history.join('\n');
}
