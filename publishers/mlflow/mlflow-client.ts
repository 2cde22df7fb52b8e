import { z } from 'zod';
import { WeldlineError } from '../../engine/errors.ts';
import { JsonServer } from '../json-server.ts';
import type { Patience } from '../publisher.ts';

export type Tags = Readonly<Record<string, string>>;

/** A version of a registered model. */
export interface ModelVersion {
  /** Of the registered model. */
  readonly name: string;
  /** Counted up from 1. */
  readonly version: number;
  readonly source: string;
  readonly runId: string | undefined;
  readonly tags: Tags;
}

export interface RegisteredModel {
  readonly tags: Tags;
  /** Alias → version. */
  readonly aliases: ReadonlyMap<string, number>;
}

/** What a run says of a version: scores, and what it was made of. */
export interface RunFacts {
  readonly name: string;
  readonly atMs: number;
  readonly tags: Tags;
  readonly params: Tags;
  readonly metrics: Readonly<Record<string, number>>;
}

const keyed = z
  .array(z.object({ key: z.string(), value: z.string().default('') }))
  .default([])
  .transform((entries) => Object.fromEntries(entries.map(({ key, value }) => [key, value])));
const version = z
  .object({
    name: z.string(),
    version: z.coerce.number().int(),
    source: z.string().default(''),
    run_id: z.string().default(''),
    tags: keyed,
  })
  .transform(({ run_id: runId, ...rest }) => ({ ...rest, runId: runId || undefined }));
const versions = z.object({
  model_versions: z.array(version).default([]),
  next_page_token: z.string().default(''),
});
const model = z.object({
  registered_model: z.object({
    tags: keyed,
    aliases: z.array(z.object({ alias: z.string(), version: z.coerce.number().int() })).default([]),
  }),
});
const run = z.object({ run: z.object({ info: z.object({ run_id: z.string() }) }) });
const runs = z.object({
  runs: z.array(z.object({ info: z.object({ run_id: z.string() }) })).default([]),
});
const experiment = z.object({ experiment: z.object({ experiment_id: z.string() }) });
const experimentId = z.object({ experiment_id: z.string() });
const failure = z.object({ error_code: z.string(), message: z.string().default('') });

const REMEDY =
  'does not answer as MLflow does. Check the address (MLFLOW_TRACKING_URI, or tracking_uri in the ' +
  'recipe); weldline knows MLflow from 2.9 on.';
const PAGE_SIZE = '200';
/** Far above any registry's; ends a server that always names a next page. */
const PAGES_MAX = 500;

/** MLflow's REST API 2.0, as of 3.17. Errors: `publish.*`. */
export class MlflowClient {
  readonly #server: JsonServer;
  /** By name. */
  readonly #experiments = new Map<string, string>();

  constructor(address: string, authorization: string | undefined, patience: Patience) {
    this.#server = new JsonServer({ address, authorization, patience, remedy: REMEDY });
  }

  /** Without credentials. */
  get origin(): string {
    return this.#server.origin;
  }

  async model(name: string, signal: AbortSignal): Promise<RegisteredModel | undefined> {
    const query = { name };
    const request = { ...get('registered-models/get', query), accept: [404] };
    const found = await this.#server.get({ ...request, what: modelOf(name) }, model, signal);
    if (found === undefined) return undefined;
    const { tags, aliases } = found.registered_model;
    return { tags, aliases: new Map(aliases.map((each) => [each.alias, each.version])) };
  }

  /** All versions, of all registered models, that have certain tags. */
  async versions(tags: Tags, signal: AbortSignal): Promise<readonly ModelVersion[]> {
    const filter = filterOf(tags);
    const found: ModelVersion[] = [];
    let token = '';
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const query = { filter, max_results: PAGE_SIZE, ...(token && { page_token: token }) };
      const request = { ...get('model-versions/search', query), what: 'versions of models' };
      const answer = await this.#server.get(request, versions, signal);
      found.push(...(answer?.model_versions ?? []));
      token = answer?.next_page_token ?? '';
      if (token === '') break;
    }
    return found;
  }

  /** Makes a version; asked once, since asking twice would make two. Its model is made before. */
  async createVersion(made: Omit<ModelVersion, 'version'>, signal: AbortSignal): Promise<void> {
    const { name, source, runId, tags } = made;
    const body = { name, source, ...(runId && { run_id: runId }), tags: entriesOf(tags) };
    const request = { ...post('model-versions/create', body), attemptsMax: 1, what: modelOf(name) };
    const first = await this.#server.ask({ ...request, accept: [404] }, signal);
    await first.body?.cancel();
    if (first.ok) return;
    await this.#make('registered-models/create', { name }, modelOf(name), signal);
    await (await this.#server.ask(request, signal)).body?.cancel();
  }

  /** Idempotent. */
  async deleteVersion(name: string, number: number, signal: AbortSignal): Promise<void> {
    const body = { name, version: String(number) };
    const options = { method: 'DELETE', accept: [404] };
    await this.#post('model-versions/delete', body, modelOf(name), signal, options);
  }

  async setTag(name: string, key: string, value: string, signal: AbortSignal): Promise<void> {
    const body = { name, key, value };
    await this.#post('registered-models/set-tag', body, modelOf(name), signal);
  }

  async setAlias(name: string, alias: string, number: number, signal: AbortSignal): Promise<void> {
    const body = { name, alias, version: String(number) };
    await this.#post('registered-models/alias', body, modelOf(name), signal);
  }

  /** The run with certain tags in an experiment, made with all it has to say if there is none. */
  async ensureRun(experimentName: string, facts: RunFacts, signal: AbortSignal): Promise<string> {
    const experiment_id = await this.#ensureExperiment(experimentName, signal);
    const what = experimentOf(experimentName);
    const search = { experiment_ids: [experiment_id], filter: filterOf(facts.tags) };
    const body = { ...search, max_results: 1 };
    const request = { ...post('runs/search', body), what };
    const found = (await this.#server.get(request, runs, signal))?.runs[0]?.info.run_id;
    if (found !== undefined) await this.#fillRun(found, facts, signal);
    return found ?? (await this.#createRun(experiment_id, facts, what, signal));
  }

  /** Idempotent. */
  async deleteRun(runId: string, signal: AbortSignal): Promise<void> {
    await this.#post('runs/delete', { run_id: runId }, `the run ${runId}`, signal, {
      accept: [404],
    });
  }

  async #createRun(
    experiment_id: string,
    facts: RunFacts,
    what: string,
    signal: AbortSignal,
  ): Promise<string> {
    const body = {
      ...{ experiment_id, run_name: facts.name, start_time: facts.atMs },
      tags: entriesOf(facts.tags),
    };
    const created = await this.#server.get({ ...post('runs/create', body), what }, run, signal);
    const runId = created?.run.info.run_id ?? '';
    await this.#fillRun(runId, facts, signal);
    return runId;
  }

  /** Idempotent: parameters that are logged again must be the same, and are. */
  async #fillRun(runId: string, facts: RunFacts, signal: AbortSignal): Promise<void> {
    const metrics = Object.entries(facts.metrics).map(([key, value]) => ({
      ...{ key, value, timestamp: facts.atMs, step: 0 },
    }));
    const what = `the run ${runId}`;
    const batch = { run_id: runId, metrics, params: entriesOf(facts.params) };
    await this.#post('runs/log-batch', batch, what, signal);
    const end = { run_id: runId, status: 'FINISHED', end_time: facts.atMs };
    await this.#post('runs/update', end, what, signal);
  }

  async #ensureExperiment(name: string, signal: AbortSignal): Promise<string> {
    const id =
      this.#experiments.get(name) ??
      (await this.#experiment(name, signal)) ??
      (await this.#makeExperiment(name, signal));
    this.#experiments.set(name, id);
    return id;
  }

  async #experiment(name: string, signal: AbortSignal): Promise<string | undefined> {
    const request = get('experiments/get-by-name', { experiment_name: name });
    const options = { ...request, what: experimentOf(name), accept: [404] };
    return (await this.#server.get(options, experiment, signal))?.experiment.experiment_id;
  }

  async #makeExperiment(name: string, signal: AbortSignal): Promise<string> {
    const what = experimentOf(name);
    const created = await this.#make('experiments/create', { name }, what, signal);
    if (created !== undefined) return experimentId.parse(created).experiment_id;
    const id = await this.#experiment(name, signal);
    if (id !== undefined) return id;
    throw new WeldlineError('publish.unavailable', `${this.origin} has lost ${what}. Run again.`);
  }

  /** Makes what has a name; undefined if it is there, since MLflow answers 400 then. */
  async #make(
    path: string,
    body: Readonly<Record<string, unknown>>,
    what: string,
    signal: AbortSignal,
  ): Promise<unknown> {
    const response = await this.#server.ask({ ...post(path, body), what, accept: [400] }, signal);
    if (response.ok) return this.#server.read(response, z.unknown());
    const { error_code: code, message } = await this.#server.read(response, failure);
    if (code === 'RESOURCE_ALREADY_EXISTS') return undefined;
    throw new WeldlineError(
      'publish.rejected',
      `${this.origin}, ${what}: MLflow says ${code}: ${message.slice(0, 300)}. Correct the target in ` +
        'the recipe.',
    );
  }

  async #post(
    path: string,
    body: Readonly<Record<string, unknown>>,
    what: string,
    signal: AbortSignal,
    options: {
      readonly method?: string;
      readonly accept?: readonly number[];
    } = {},
  ): Promise<void> {
    const response = await this.#server.ask({ ...post(path, body), what, ...options }, signal);
    await response.body?.cancel();
  }
}

const API = 'api/2.0/mlflow/';

function get(path: string, query: Tags) {
  return { method: 'GET', path: API + path, query };
}

function post(path: string, body: Readonly<Record<string, unknown>>) {
  return { method: 'POST', path: API + path, body };
}

function modelOf(name: string): string {
  return `the registered model ${name}`;
}

function experimentOf(name: string): string {
  return `the experiment ${name}`;
}

/** Values must be without quotes. */
function filterOf(tags: Tags): string {
  return Object.entries(tags)
    .map(([key, value]) => `tags.\`${key}\` = '${value}'`)
    .join(' and ');
}

function entriesOf(values: Tags): readonly { readonly key: string; readonly value: string }[] {
  return Object.entries(values).map(([key, value]) => ({ key, value }));
}
