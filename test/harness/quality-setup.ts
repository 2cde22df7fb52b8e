/** Releases of the example model with everything that is made of it, by the real tools. */
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Environment, readEnvironment } from '../../config/environment.ts';
import { type LoadedRecipe, parseRecipe } from '../../config/recipe.ts';
import { TEST_TOOLS } from '../tools/test-tools.ts';
import { shareWorkflowBundle } from './workflow-bundle.ts';

export const EXAMPLE = fileURLToPath(new URL('../../examples/tiny/', import.meta.url));

export interface QualitySetup {
  readonly directory: string;
  readonly home: string;
  readonly target: string;
  readonly environment: Environment;
  readonly variables: Readonly<Record<string, string>>;
}

export async function setUpQuality(directory: string): Promise<QualitySetup> {
  const home = join(directory, 'home');
  await mkdir(home, { recursive: true });
  await shareWorkflowBundle(home);
  const variables = {
    WELDLINE_HOME: home,
    WELDLINE_TOOLS: TEST_TOOLS,
    HF_HOME: join(directory, 'huggingface'),
    WELDLINE_THREADS: '2',
    WELDLINE_LOG_LEVEL: 'warn',
    PATH: process.env['PATH'] ?? '',
  };
  const environment = readEnvironment(variables);
  return { directory, home, target: join(directory, 'releases'), environment, variables };
}

export interface QualityRecipe {
  readonly name: string;
  readonly version?: string;
  /** Directory of the example, or of a copy of it. */
  readonly models?: string;
  readonly adapter?: string;
  readonly convert?: readonly unknown[];
  readonly evaluate?: unknown;
  readonly approval?: 'none' | 'required';
}

/** The recipe as a person would write it, in YAML's JSON. */
export function qualityRecipe(setup: QualitySetup, recipe: QualityRecipe): LoadedRecipe {
  const { name, version = '1.0.0', models = EXAMPLE, adapter = 'calculator' } = recipe;
  const text = JSON.stringify({
    name,
    version,
    base: { model: join(models, 'base') },
    adapters: [
      {
        id: 'calculator',
        model: adapter.includes(':') ? adapter : join(models, 'adapters', adapter),
        version: '1',
      },
    ],
    ...(recipe.convert && { convert: recipe.convert }),
    ...(recipe.evaluate === undefined ? {} : { evaluate: recipe.evaluate }),
    ...(recipe.approval && { approval: recipe.approval }),
    publish: [{ directory: { path: setup.target } }],
  });
  return parseRecipe(text, join(setup.directory, 'recipe.yaml'));
}

/**
 * The suite of an adapter of the example.
 * @param models directory of the example, or of a copy of it
 */
export function exampleSuite(
  settings: Readonly<Record<string, unknown>> = {},
  models: string = EXAMPLE,
) {
  const data = join(models, 'eval', 'calculator.jsonl');
  return { id: 'calculator', data, max_new_tokens: 12, ...settings };
}

/** A copy of the example whose files may be damaged. */
export async function copyExample(directory: string): Promise<void> {
  await cp(EXAMPLE, directory, { recursive: true });
}

export async function writeLines(path: string, values: readonly unknown[]): Promise<string> {
  await writeFile(path, values.map((value) => `${JSON.stringify(value)}\n`).join(''));
  return path;
}
