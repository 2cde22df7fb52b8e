import { basename } from 'node:path';
import { readEnvironment } from '../config/environment.ts';
import { parseSize } from '../config/parse-size.ts';
import { chooseResources, type MergeResources } from '../engine/merge/resources.ts';
import type { StreamedInput, StreamedInputs } from '../engine/merge/streamed-input.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { COMBINATION_METHODS, type Combination } from '../engine/plan/combination.ts';
import { MERGE_ONTO, type MergeOnto } from '../engine/plan/merge-onto-choices.ts';
import type { Plan, PlanPreview } from '../engine/plan/plan.ts';
import { completePlan, previewMerge } from '../engine/plan/plan-merge.ts';
import type { TorchDtype } from '../engine/safetensors/dtype.ts';
import { checkTrainedOn } from '../sources/adapter-lineage.ts';
import {
  fetchToDisk,
  identityOf,
  type LocatedModel,
  locateModel,
  type ModelAccess,
  type ModelRole,
  withoutWeights,
} from '../sources/model-input.ts';
import { type OpenedInput, openInput, unreadBytes } from '../sources/open-input.ts';
import { parseModelReference } from '../sources/reference.ts';
import { modelAccess } from '../workers/model-access.ts';
import { numbersOption, parametersOption } from './combination-parameters.ts';
import type { Progress } from './progress.ts';
import { usage } from './usage.ts';

/** The options that `merge` and `plan` share, as the command line gives them. */
export interface MergeArguments {
  readonly base: string;
  readonly adapter?: readonly string[];
  readonly combine?: string;
  readonly weights?: string;
  readonly rank?: string;
  readonly density?: string;
  readonly seed?: string;
  readonly majoritySign?: string;
  readonly dtype?: string;
  readonly mergeOnto?: string;
  readonly maxShardSize?: string;
  readonly threads?: string;
  readonly memoryBudget?: string;
  readonly stream?: boolean;
}

interface ModelName {
  readonly model: string;
  readonly revision?: string | undefined;
}

/** A merge as asked for, checked. */
export interface MergeRequest {
  /** Whether the base's weights are read where they are instead of fetched. */
  readonly stream?: boolean | undefined;
  readonly base: ModelName;
  readonly adapters: readonly (ModelName & { readonly id: string })[];
  readonly combination?: Combination | undefined;
  readonly dtype?: TorchDtype | undefined;
  readonly mergeOnto?: MergeOnto | undefined;
  readonly shardBytesMax?: number | undefined;
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes?: number | undefined;
}

export interface PreparedMerge {
  readonly preview: PlanPreview;
  /** Of the files that the plan covers and that were not read for their digests yet. */
  readonly unreadBytes: number;
  /** Reads them, and completes the plan. */
  readonly plan: () => Promise<Plan>;
  /** Directory of each input, by its id; of a base that stayed remote, its name. */
  readonly roots: Readonly<Record<string, string>>;
  /** The base, if its weights are read where they are. */
  readonly streamed?: StreamedInputs | undefined;
  /** The files of each input, by its id, and where those of the base are. */
  readonly models: Readonly<Record<string, ModelFiles>>;
  readonly base: 'local' | 'remote';
  readonly resources: MergeResources;
  /** What the inputs are called in the manifest. */
  readonly names: Readonly<Record<string, { readonly model: string }>>;
}

const DTYPES: readonly TorchDtype[] = ['bfloat16', 'float16', 'float32'];

/** The id of the adapter where no recipe gives it one; of several, with a number. */
const ADAPTER_ID = 'adapter';

/** @throws WeldlineError `cli.usage` */
export function parseMergeArguments(options: MergeArguments): MergeRequest {
  const models = options.adapter ?? [];
  if (models.length === 0) throw usage('Give at least one --adapter.');
  return {
    base: { model: options.base },
    adapters: models.map((model, index) => ({
      id: models.length === 1 ? ADAPTER_ID : `${ADAPTER_ID}-${index + 1}`,
      model,
    })),
    combination: combinationOption(models.length, options),
    dtype: choiceOption('--dtype', options.dtype, DTYPES),
    mergeOnto: choiceOption('--merge-onto', options.mergeOnto, MERGE_ONTO),
    shardBytesMax: sizeOption('--max-shard-size', options.maxShardSize),
    stream: options.stream ?? false,
    threads: threadsOption(options.threads),
    memoryBudgetBytes: sizeOption('--memory-budget', options.memoryBudget),
  };
}

export interface PrepareOptions {
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** Plan only: of a base elsewhere, headers and small files are read, and nothing is fetched. */
  readonly baseStaysRemote?: boolean;
}

/**
 * Finds, fetches and previews a merge: everything about it but what takes reading the base.
 * @throws WeldlineError what reading and planning throw
 */
export async function prepareMerge(
  request: MergeRequest,
  options: PrepareOptions,
): Promise<PreparedMerge> {
  const environment = readEnvironment();
  const access = modelAccess(environment);
  // The adapters first: they are small, and a typo in a name is found at once.
  const adapters: ({ readonly id: string; readonly model: string } & OpenedModel)[] = [];
  for (const { id, ...name } of request.adapters) {
    const opened = await open(access, 'adapter', name, options);
    adapters.push({ id, model: name.model, ...opened });
  }
  const base = await open(access, 'base', request.base, options, request.stream);
  const { signal } = options;
  const { combination } = request;
  const asking = { askHub: true, combination, signal };
  const lineage = await checkTrainedOn(access, base.located, adapters, asking);
  const merge = await previewMerge(
    base.input.files,
    adapters.map(({ id, input }) => ({ id, ...input })),
    request,
  );
  const preview = { ...merge, warnings: [...lineage, ...merge.warnings] };
  const byId = <Value>(value: (adapter: (typeof adapters)[number]) => Value) =>
    Object.fromEntries(adapters.map((adapter) => [adapter.id, value(adapter)]));
  const inputs = { base: base.input, ...byId(({ input }) => input) };
  const resources = chooseResources(preview, {
    threads: request.threads ?? environment.threads,
    memoryBudgetBytes: request.memoryBudgetBytes ?? environment.memoryBudgetBytes,
    streamsInput: base.streamed !== undefined,
  });
  return {
    preview,
    unreadBytes: await unreadBytes(preview, inputs),
    plan: async () => {
      try {
        return await completePlan(preview, inputs);
      } finally {
        // Also where it was stopped: the next run need not read those files again.
        await access.digests.save();
      }
    },
    ...(base.streamed && { streamed: { base: base.streamed } }),
    roots: { base: base.directory, ...byId(({ directory }) => directory) },
    models: { base: base.input.files, ...byId(({ input }) => input.files) },
    base: base.isRemote ? 'remote' : 'local',
    resources,
    names: {
      base: { model: publicModelName(request.base.model) },
      ...byId(({ model }) => ({ model: publicModelName(model) })),
    },
  };
}

interface OpenedModel {
  readonly located: LocatedModel;
  readonly directory: string;
  readonly isRemote: boolean;
  /** Where its weights are read. */
  readonly streamed?: StreamedInput;
  readonly input: OpenedInput;
}

async function open(
  access: ModelAccess,
  role: ModelRole,
  name: ModelName,
  { progress, signal, baseStaysRemote = false }: PrepareOptions,
  stream = false,
): Promise<OpenedModel> {
  const located = await locateModel(access, { ...name, role, signal });
  if (role === 'base' && baseStaysRemote && located.kind !== 'directory') {
    return {
      located,
      directory: name.model,
      isRemote: true,
      input: await openInput(access, located),
    };
  }
  const isStreamed = stream && located.kind !== 'directory';
  if (stream && !isStreamed) {
    throw usage(`--stream is for a base that is elsewhere, and ${name.model} is a directory.`);
  }
  const directory = await fetchToDisk(access, isStreamed ? withoutWeights(located) : located, {
    signal,
    onProgress: ({ file, ...bytes }) =>
      progress.update({ label: `fetching ${role}`, item: file, ...bytes }),
  });
  let bytesDone = 0;
  const onBytes = (count: number): void => {
    bytesDone += count;
    progress.update({ label: `reading ${role}`, item: '', bytesDone, bytesTotal: 0 });
  };
  if (isStreamed) {
    const input = await openInput(access, located, { signal, onBytes });
    const streamed = { files: input.files, pin: identityOf(located) };
    return { located, directory, isRemote: true, input, streamed };
  }
  const input = await openInput(access, located, { directory, signal, onBytes });
  return { located, directory, isRemote: false, input };
}

/** Paths of this machine mean nothing elsewhere: of a directory, the last component is kept. */
function publicModelName(model: string): string {
  const reference = parseModelReference(model, process.cwd());
  if (reference.kind === 'remote') return reference.uri;
  return reference.kind === 'hub' ? model : basename(reference.path);
}

function combinationOption(count: number, options: MergeArguments): Combination | undefined {
  const { combine, weights } = options;
  const method = choiceOption('--combine', combine, COMBINATION_METHODS);
  if (method === undefined && count > 1) {
    throw usage(
      `There are ${count} adapters. Say how they are combined: --combine linear (the sum of all, ` +
        'each times its weight; cat is the same) or --combine sequential (one after the other).',
    );
  }
  const parameters = parametersOption(method ?? 'linear', count, options);
  if (weights === undefined) {
    return method === undefined ? undefined : { method, ...(parameters && { parameters }) };
  }
  const numbers = numbersOption('--weights', weights, '1,-0.5');
  if (numbers.length !== count) {
    throw usage(
      `--weights has ${numbers.length} numbers for ${count} adapters. Give one for each.`,
    );
  }
  return { method: method ?? 'linear', weights: numbers, ...(parameters && { parameters }) };
}

function choiceOption<Choice extends string>(
  name: string,
  value: string | undefined,
  choices: readonly Choice[],
): Choice | undefined {
  if (value === undefined) return undefined;
  const chosen = choices.find((choice) => choice === value);
  if (chosen === undefined) throw usage(`${name} ${value} is not one of ${choices.join(', ')}.`);
  return chosen;
}

function sizeOption(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  try {
    return parseSize(value);
  } catch {
    throw usage(`${name} ${value} is not a size; write 5GB, 500MB or a number of bytes.`);
  }
}

/** @throws WeldlineError `cli.usage` */
export function threadsOption(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const threads = Number(value);
  if (!Number.isInteger(threads) || threads < 1) {
    throw usage(`--threads ${value} is not a whole number of at least 1.`);
  }
  return threads;
}
