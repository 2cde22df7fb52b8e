import { WeldlineError } from '../../engine/errors.ts';
import type {
  AliasState,
  Artefact,
  ArtefactDescription,
  ArtefactFile,
  ArtefactId,
  FoundArtefact,
  MoveAlias,
  Patience,
  Published,
  Publisher,
  PublishOptions,
} from '../publisher.ts';
import { fileBody } from './file-body.ts';
import type { ModelSettings } from './modelfile-text.ts';
import { OllamaClient, type OllamaModel } from './ollama-client.ts';
import { aliasMoved, conflict } from './ollama-conflicts.ts';
import { readSettings, weightsOf } from './ollama-input.ts';
import { modelName, tagOf } from './ollama-names.ts';
import {
  type OllamaRecord,
  readAliasRecord,
  readRecord,
  recordOf,
  writeAliasRecord,
  writeRecord,
} from './ollama-record.ts';

export interface OllamaTarget {
  readonly model: string;
  /** May hold credentials; they are not shown. */
  readonly endpoint: string;
}

/** A model of ours, and what is noted of it. */
interface Noted {
  readonly tag: string;
  readonly record: OllamaRecord;
  readonly alias?: { readonly alias: string; readonly history: readonly string[] };
}

/**
 * Publishes GGUFs as tags of a model in Ollama, with the template, system prompt and parameters of
 * their Modelfile. Other files have no place there.
 *
 * Creating the model is the commit: Ollama has compared the weights with their digest before. It
 * knows no condition for it, so of two who publish different artefacts under one version at the same
 * moment from two processes, the later one wins. The same goes for aliases.
 */
export class OllamaPublisher implements Publisher {
  readonly kind = 'ollama';
  readonly holds = 'files';
  readonly name: string;
  readonly #client: OllamaClient;
  readonly #model: string;
  /** Changes of this process come one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(target: OllamaTarget, patience: Patience) {
    this.#client = new OllamaClient(target.endpoint, patience);
    this.#model = modelName(target.model);
    const { host, pathname } = new URL(this.#client.origin);
    this.name = `ollama://${host}${pathname.replace(/\/$/, '')}/${this.#model}`;
  }

  accepts(kind: ArtefactDescription['kind']): boolean {
    return kind === 'gguf';
  }

  async check(id: ArtefactId, planDigest: string | undefined, signal: AbortSignal): Promise<void> {
    const found = await this.find(id, signal);
    if (found === undefined) return this.#refuseForeign(this.#tag(id), signal);
    if (planDigest !== undefined && found.planDigest !== planDigest) {
      throw conflict(found.location, 'made from other inputs');
    }
  }

  async publish(artefact: Artefact, options: PublishOptions): Promise<Published> {
    const { signal, onProgress } = options;
    signal.throwIfAborted();
    const there = await this.#publishedAs(artefact, signal);
    if (there !== undefined) return { ...there, existed: true, bytesSent: 0 };
    const weights = weightsOf(artefact);
    const settings = await readSettings(artefact);
    const report = (bytesDone: number): void =>
      onProgress({ item: weights.path, bytesDone, bytesTotal: weights.size });
    report(0);
    signal.throwIfAborted();
    let bytesSent = 0;
    if (!(await this.#client.hasBlob(weights.sha256, signal))) {
      await this.#client.sendBlob(weights, () => fileBody(weights, report), signal);
      bytesSent = weights.size;
    }
    report(weights.size);
    return this.#inTurn(async () => {
      const meanwhile = await this.#publishedAs(artefact, signal);
      if (meanwhile !== undefined) return { ...meanwhile, existed: true, bytesSent };
      await this.#create(artefact, weights, settings, signal);
      await this.#expectOurs(artefact, signal);
      const record = recordOf(artefact, weights.sha256);
      const { location, pinned } = this.#found({ tag: this.#tag(artefact), record });
      return { target: this.kind, location, pinned, existed: false, bytesSent };
    });
  }

  async find(id: ArtefactId, signal: AbortSignal): Promise<FoundArtefact | undefined> {
    const tag = this.#tag(id);
    const model = await this.#client.show(this.#full(tag), signal);
    const noted = model && noteOf(tag, model);
    if (noted === undefined || noted.alias !== undefined || !isSame(noted.record, id)) return;
    return this.#found(noted);
  }

  async list(signal: AbortSignal): Promise<readonly FoundArtefact[]> {
    const all = await this.#notes(signal);
    return all.flatMap((noted) => (noted.alias === undefined ? [this.#found(noted)] : []));
  }

  async withdraw(id: ArtefactId, signal: AbortSignal): Promise<void> {
    if ((await this.find(id, signal)) === undefined) return;
    const { aliases } = await this.#aliases(signal);
    const pointing = aliases.find(({ release, part }) =>
      isSame({ release, ...(part && { part }) }, id),
    );
    if (pointing !== undefined) {
      throw new WeldlineError(
        'publish.aliased',
        `The alias ${pointing.alias} points at ${this.#uri(this.#tag(id))}. Point it at another ` +
          'release first (weldline promote).',
      );
    }
    await this.#client.remove(this.#full(this.#tag(id)), signal);
  }

  async readAlias(
    alias: string,
    part: string | undefined,
    signal: AbortSignal,
  ): Promise<AliasState | undefined> {
    const tag = tagOf(alias, part);
    const model = await this.#client.show(this.#full(tag), signal);
    const noted = model && noteOf(tag, model);
    if (noted?.alias?.alias !== alias || noted.record.part !== part) return undefined;
    return { release: noted.record.release, history: noted.alias.history };
  }

  async listAliases(
    signal: AbortSignal,
  ): Promise<readonly (AliasState & { readonly alias: string; readonly part?: string })[]> {
    return (await this.#aliases(signal)).aliases;
  }

  async moveAlias(move: MoveAlias, signal: AbortSignal): Promise<void> {
    const { alias, part, to, from, history } = move;
    const id = { release: to, ...(part !== undefined && { part }) };
    await this.#inTurn(async () => {
      const target = await this.find(id, signal);
      if (target === undefined) {
        throw new WeldlineError(
          'publish.not-found',
          `${this.name} has no release ${to}${part === undefined ? '' : ` with ${part}`}, so the ` +
            `alias ${alias} cannot point at it. Publish it there first.`,
        );
      }
      const now = await this.readAlias(alias, part, signal);
      if (!isSameState(now, from)) throw aliasMoved(this.name, alias, now);
      const tag = tagOf(alias, part);
      if (now === undefined) await this.#refuseForeign(tag, signal);
      const license = [writeAliasRecord({ alias, history })];
      const made = { model: this.#full(tag), from: this.#full(this.#tag(id)), license };
      await this.#client.create(made, signal);
      // Had the release been withdrawn just then, Ollama would have looked for it elsewhere.
      const after = await this.readAlias(alias, part, signal);
      if (!isSameState(after, { release: to, history })) throw aliasMoved(this.name, alias, after);
    });
  }

  async #create(
    artefact: Artefact,
    weights: ArtefactFile,
    { template, system, parameters, license }: ModelSettings,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#client.create(
      {
        model: this.#full(this.#tag(artefact)),
        files: { [weights.path.replace(/^.*\//, '')]: `sha256:${weights.sha256}` },
        ...(template !== undefined && { template }),
        ...(system !== undefined && { system }),
        parameters,
        license: [
          ...(license === undefined ? [] : [license]),
          writeRecord(recordOf(artefact, weights.sha256)),
        ],
      },
      signal,
    );
  }

  /** What Ollama says it made is made, unless another was made over it. */
  async #expectOurs(artefact: Artefact, signal: AbortSignal): Promise<void> {
    try {
      await this.#publishedAs(artefact, signal);
    } catch (error) {
      if (error instanceof WeldlineError && error.code === 'publish.conflict') throw error;
    }
  }

  /** Where an artefact is, if it is; something else in its place is a conflict. */
  async #publishedAs(
    artefact: Artefact,
    signal: AbortSignal,
  ): Promise<Pick<Published, 'target' | 'location' | 'pinned'> | undefined> {
    const found = await this.find(artefact, signal);
    if (found === undefined) {
      await this.#refuseForeign(this.#tag(artefact), signal);
      return undefined;
    }
    const { location, pinned } = found;
    if (found.manifestDigest === artefact.manifestDigest) {
      return { target: this.kind, location, pinned };
    }
    throw conflict(location, 'made from other inputs');
  }

  async #refuseForeign(tag: string, signal: AbortSignal): Promise<void> {
    const model = await this.#client.show(this.#full(tag), signal);
    if (model !== undefined) throw conflict(this.#uri(tag), 'which is not what weldline calls so');
  }

  async #aliases(signal: AbortSignal) {
    const all = await this.#notes(signal);
    const aliases = all.flatMap(({ alias, record: { release, part } }) =>
      alias === undefined ? [] : [{ ...alias, release, ...(part !== undefined && { part }) }],
    );
    return { aliases };
  }

  /** All tags of the model that weldline made. */
  async #notes(signal: AbortSignal): Promise<readonly Noted[]> {
    const notes: Noted[] = [];
    const start = `${this.#model.toLowerCase()}:`;
    for (const name of await this.#client.list(signal)) {
      if (!name.toLowerCase().startsWith(start)) continue;
      const model = await this.#client.show(name, signal);
      const noted = model && noteOf(name.slice(start.length), model);
      if (noted !== undefined) notes.push(noted);
    }
    return notes;
  }

  #found({ tag, record }: Noted): FoundArtefact {
    const { weights, ...rest } = record;
    const location = this.#uri(tag);
    return { ...rest, location, pinned: `${location}@sha256:${weights}`, isPruned: false };
  }

  #tag({ release, part }: ArtefactId): string {
    return tagOf(release, part);
  }

  #full(tag: string): string {
    return `${this.#model}:${tag}`;
  }

  #uri(tag: string): string {
    return `${this.name}:${tag}`;
  }

  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(change);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

/** What is noted of a model, if its weights are the noted ones still. */
function noteOf(tag: string, model: OllamaModel): Noted | undefined {
  const record = readRecord(model.license);
  if (record === undefined || record.weights !== model.weights) return undefined;
  const alias = readAliasRecord(model.license);
  return { tag, record, ...(alias !== undefined && { alias }) };
}

function isSame(one: ArtefactId, other: ArtefactId): boolean {
  return one.release === other.release && one.part === other.part;
}

function isSameState(one: AliasState | undefined, other: AliasState | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.release === other.release && one.history.join('\n') === other.history.join('\n');
}
