import { open } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { digestOf } from '../engine/canonical-json.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { Combination } from '../engine/plan/combination.ts';
import type { MergeOnto } from '../engine/plan/merge-onto-choices.ts';
import type { MergeOptions } from '../engine/plan/plan.ts';
import { combinationParameters } from './combination-schema.ts';
import { parseSize } from './parse-size.ts';
import { type PublishTarget, toTargets } from './publish-schema.ts';
import { recipeInvalid } from './recipe-problems.ts';
import { type RecipeDocument, recipeSchema } from './recipe-schema.ts';
import { refuseSecrets } from './recipe-secrets.ts';
import { RECIPE_BYTES_MAX, readRecipeText } from './recipe-text.ts';
import {
  type RecipeConversion,
  type RecipeEvaluation,
  toConversions,
  toEvaluation,
} from './release-quality.ts';

export interface ModelReference {
  /** An absolute path, `hf://org/name` (never with `@revision`), or another URI as it was written. */
  model: string;
  /** Branch, tag or commit; only for `hf://`. */
  revision?: string;
}

export interface RecipeBase extends ModelReference {
  /** Present where weights are read from where they are while they are merged. */
  fetch?: 'stream';
}

export interface RecipeAdapter extends ModelReference {
  id: string;
  /** What its delta is multiplied by. */
  weight: number;
  version?: string;
  trainingRun?: string;
}

export interface RecipeMerge {
  /** Absent: every tensor keeps the dtype it has in the base. */
  dtype?: 'bfloat16' | 'float16' | 'float32';
  shardBytesMax?: number;
  threads?: number;
  memoryBudgetBytes?: number;
  /** Written beside the base that it is about. */
  mergeOnto?: MergeOnto;
}

/** What to release, with paths absolute, sizes in bytes and defaults filled in. */
export interface Recipe {
  name: string;
  /** Or the rule that each run makes one of, until `withVersion` has. */
  version: string;
  base: RecipeBase;
  adapters: readonly [RecipeAdapter, ...RecipeAdapter[]];
  combination: Pick<Combination, 'method' | 'parameters'>;
  merge: RecipeMerge;
  /** Absent, as `evaluation`, where the recipe names none. */
  conversions?: readonly RecipeConversion[];
  evaluation?: RecipeEvaluation;
  /** Whether a person must agree before anything is published. */
  approval?: 'required';
  /** How `model.sig` is made; absent: it is not. */
  sign?: 'key' | 'keyless';
  /** Present where releases do not carry their adapters. */
  archiveAdapters?: false;
  /** Empty when the recipe names none: the release then stays in the workspace. */
  publish: readonly PublishTarget[];
}

export interface LoadedRecipe {
  recipe: Recipe;
  /** sha256 over the recipe as written, whatever the order of its keys and wherever it stands. */
  digest: string;
  /** The absolute path it was read from. */
  path: string;
  /** What it says itself of a refusal by the gate; absent where the default decides. */
  onFailure?: RecipeEvaluation['onFailure'];
}

/**
 * Reads and checks a recipe, YAML or JSON.
 *
 * @param path relative paths are relative to the current directory
 * @throws WeldlineError `recipe.not-found`, `recipe.syntax`, `recipe.invalid` (all problems at
 *   once, each with `file:line:column`) or `recipe.secret`
 */
export async function loadRecipe(path: string): Promise<LoadedRecipe> {
  return parseRecipe(await readRecipe(path), path);
}

/**
 * {@link loadRecipe} on text that is already in memory.
 *
 * @param path where the text stands: paths in the recipe are relative to its directory
 */
export function parseRecipe(text: string, path: string): LoadedRecipe {
  const absolutePath = resolve(path);
  // Before anything that may quote a line of the recipe.
  refuseSecrets(text, path);
  const recipeText = readRecipeText(text, path);
  const result = recipeSchema.safeParse(recipeText.value);
  if (!result.success) throw recipeInvalid(result.error.issues, recipeText);
  const onFailure = result.data.evaluate?.on_failure;
  return {
    recipe: toRecipe(result.data, dirname(absolutePath)),
    digest: digestOf(result.data),
    path: absolutePath,
    ...(onFailure === undefined ? {} : { onFailure }),
  };
}

async function readRecipe(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readAtMost(path, RECIPE_BYTES_MAX + 1);
  } catch (error) {
    const reason = { ENOENT: 'does not exist', EISDIR: 'is a directory, not a file' }[
      systemErrorCode(error) ?? ''
    ];
    throw new WeldlineError(
      'recipe.not-found',
      `The recipe ${resolve(path)} ${reason ?? `cannot be read: ${(error as Error).message}`}. ` +
        'Give the path of a YAML or JSON recipe.',
      { cause: error },
    );
  }
  if (bytes.length > RECIPE_BYTES_MAX) {
    throw new WeldlineError(
      'recipe.invalid',
      `${path} is larger than ${RECIPE_BYTES_MAX / 1024} KiB, which no recipe is. ` +
        'Is this the right file?',
    );
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new WeldlineError(
      'recipe.syntax',
      `${path} is not UTF-8 text. Save it as UTF-8, or give the path of the recipe.`,
      { cause: error },
    );
  }
}

async function readAtMost(path: string, byteCount: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.alloc(byteCount);
    let filled = 0;
    while (filled < byteCount) {
      const { bytesRead } = await file.read(buffer, filled, byteCount - filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return buffer.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** The only place where the recipe's snake_case becomes camelCase. */
function toRecipe(document: RecipeDocument, directory: string): Recipe {
  const [first, ...others] = document.adapters.map((each) => toAdapter(each, directory));
  if (first === undefined) throw new WeldlineError('internal.bug', 'a recipe without adapters');
  return {
    name: document.name,
    version: document.version,
    base: {
      ...toModelReference(document.base, directory),
      ...(document.base.fetch === 'stream' ? { fetch: 'stream' as const } : {}),
    },
    adapters: [first, ...others],
    combination: toCombination(document),
    merge: toMerge(document.merge ?? {}, document.base.merge_onto),
    ...toQuality(document, first.id, directory),
    ...(document.sign === undefined ? {} : { sign: document.sign }),
    ...(document.archive_adapters === false ? { archiveAdapters: false as const } : {}),
    publish: toTargets(document.publish ?? [], (path) => toPath(path, directory)),
  };
}

function toQuality(
  { convert, evaluate, approval }: RecipeDocument,
  firstAdapter: string,
  directory: string,
): Pick<Recipe, 'conversions' | 'evaluation' | 'approval'> {
  const path = (text: string) => toPath(text, directory);
  return {
    ...(convert === undefined ? {} : { conversions: toConversions(convert, path) }),
    ...(evaluate === undefined ? {} : { evaluation: toEvaluation(evaluate, firstAdapter, path) }),
    ...(approval === 'required' ? { approval } : {}),
  };
}

function toAdapter(adapter: RecipeDocument['adapters'][number], directory: string): RecipeAdapter {
  return {
    id: adapter.id,
    ...toModelReference(adapter, directory),
    weight: adapter.weight ?? 1,
    ...(adapter.version === undefined ? {} : { version: adapter.version }),
    ...(adapter.training_run === undefined ? {} : { trainingRun: adapter.training_run }),
  };
}

function toCombination(document: RecipeDocument): Recipe['combination'] {
  const parameters = combinationParameters(document);
  const { method = 'linear' } = document.combination ?? {};
  return { method, ...(parameters === undefined ? {} : { parameters }) };
}

/** What a recipe asks of planning. */
export function mergeOptionsOf({ merge, adapters, combination }: Recipe): MergeOptions {
  if (combination.method === 'sequential') return { ...merge, combination };
  const weights = adapters.map(({ weight }) => weight);
  return { ...merge, combination: { ...combination, weights } };
}

function toMerge(
  merge: NonNullable<RecipeDocument['merge']>,
  mergeOnto: RecipeMerge['mergeOnto'],
): RecipeMerge {
  return {
    ...(mergeOnto === undefined ? {} : { mergeOnto }),
    ...(merge.dtype === undefined ? {} : { dtype: merge.dtype }),
    ...(merge.max_shard_size === undefined
      ? {}
      : { shardBytesMax: parseSize(merge.max_shard_size) }),
    ...(merge.threads === undefined ? {} : { threads: merge.threads }),
    ...(merge.memory_budget === undefined
      ? {}
      : { memoryBudgetBytes: parseSize(merge.memory_budget) }),
  };
}

function toModelReference(
  source: { model: string; revision?: string | undefined },
  directory: string,
): ModelReference {
  if (/^(s3|oci|https?):\/\//.test(source.model)) return { model: source.model };
  if (!source.model.startsWith('hf://')) return { model: toPath(source.model, directory) };
  const at = source.model.indexOf('@');
  const model = at < 0 ? source.model : source.model.slice(0, at);
  const revision = source.revision ?? (at < 0 ? undefined : source.model.slice(at + 1));
  return { model, ...(revision === undefined ? {} : { revision }) };
}

/** `~/` is the home directory, as in a shell; anything else is relative to the recipe. */
function toPath(path: string, directory: string): string {
  return path === '~' || path.startsWith('~/')
    ? join(homedir(), path.slice(1))
    : resolve(directory, path);
}
