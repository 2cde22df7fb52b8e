/** Everything one release needs, in a directory of its own: models, recipe, home. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Environment, readEnvironment } from '../../config/environment.ts';
import { type LoadedRecipe, parseRecipe } from '../../config/recipe.ts';
import type { ReleaseInput } from '../../workflows/messages.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import {
  adapterFiles,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../doubles/tiny-model.ts';
import { shareWorkflowBundle } from './workflow-bundle.ts';

export interface SetupOptions {
  readonly base?: TinyModel;
  readonly adapter?: TinyModel;
  readonly variables?: Readonly<Record<string, string>>;
}

export interface ReleaseSetup {
  readonly directory: string;
  readonly home: string;
  readonly base: string;
  readonly adapter: string;
  /** Where the recipe publishes. */
  readonly target: string;
  readonly environment: Environment;
  /** The variables the environment was read from, for child processes. */
  readonly variables: Readonly<Record<string, string>>;
}

/** Writes a base `tiny` and an adapter `tone` into `directory`. */
export async function setUpRelease(
  directory: string,
  options: SetupOptions = {},
): Promise<ReleaseSetup> {
  const path = (name: string): string => join(directory, name);
  const home = path('home');
  await mkdir(home, { recursive: true });
  await writeFiles(path('tiny'), baseFiles(options.base ?? tinyBase({ shards: 2 })));
  await writeFiles(path('tone'), adapterFiles(options.adapter ?? tinyAdapter()));
  await shareWorkflowBundle(home);
  const variables = {
    WELDLINE_HOME: home,
    HF_HOME: path('huggingface'),
    WELDLINE_THREADS: '2',
    // However many processors this machine has.
    WELDLINE_MERGE_SLOTS: '1',
    WELDLINE_LOG_LEVEL: 'warn',
    ...options.variables,
  };
  return {
    directory,
    home,
    base: path('tiny'),
    adapter: path('tone'),
    target: path('releases'),
    environment: readEnvironment(variables),
    variables,
  };
}

export interface RecipeChanges {
  readonly name?: string;
  readonly version?: string;
  readonly base?: string;
  readonly adapter?: string;
  readonly adapterVersion?: string;
  readonly trainingRun?: string;
  /** Adapters after the first, as the recipe has them, and how all are combined. */
  readonly others?: readonly Readonly<Record<string, string | number>>[];
  readonly combination?: string;
  /** Further keys of `merge`. */
  readonly merge?: Readonly<Record<string, string | number>>;
  readonly targets?: readonly string[];
  /** Of each target. */
  readonly aliases?: readonly string[];
  readonly approval?: 'none' | 'required';
}

/** The recipe as a person would write it. */
export function recipeText(setup: ReleaseSetup, changes: RecipeChanges = {}): string {
  const { targets = [setup.target], merge = {}, others = [], combination, aliases } = changes;
  const line = (key: string, value: string | undefined): string =>
    value === undefined ? '' : `    ${key}: ${JSON.stringify(value)}\n`;
  return (
    `name: ${changes.name ?? 'tone-model'}\nversion: ${changes.version ?? '1.0.0'}\n` +
    `base: { model: ${JSON.stringify(changes.base ?? setup.base)} }\n` +
    `adapters:\n  - id: tone\n${line('model', changes.adapter ?? setup.adapter)}` +
    line('version', changes.adapterVersion) +
    line('training_run', changes.trainingRun) +
    others.map((other) => `  - ${JSON.stringify(other)}\n`).join('') +
    (combination === undefined ? '' : `combination: { method: ${combination} }\n`) +
    (Object.keys(merge).length === 0 ? '' : `merge: ${JSON.stringify(merge)}\n`) +
    (changes.approval === undefined ? '' : `approval: ${changes.approval}\n`) +
    `publish: ${JSON.stringify(targets.map((path) => ({ directory: { path }, aliases })))}\n`
  );
}

export function recipeOf(setup: ReleaseSetup, changes?: RecipeChanges): LoadedRecipe {
  return parseRecipe(recipeText(setup, changes), join(setup.directory, 'recipe.yaml'));
}

export async function writeRecipe(setup: ReleaseSetup, changes?: RecipeChanges): Promise<string> {
  const path = join(setup.directory, 'recipe.yaml');
  await writeFile(path, recipeText(setup, changes));
  return path;
}

/** What `weldline release` starts the workflow with; a silent worker is found dead after 5 s. */
export function releaseInput(
  { recipe, digest }: LoadedRecipe,
  changes: Partial<ReleaseInput> = {},
): ReleaseInput {
  return {
    recipe,
    recipeDigest: digest,
    parallelShards: 2,
    heartbeatTimeoutMs: 5_000,
    ...changes,
  };
}
