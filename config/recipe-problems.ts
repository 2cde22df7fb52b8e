import type { z } from 'zod';
import { WeldlineError } from '../engine/errors.ts';
import { closestName } from './closest-name.ts';
import { recipeJsonSchema, type SchemaNode } from './recipe-schema.ts';
import type { Position, RecipeText } from './recipe-text.ts';

interface Problem extends Position {
  path: string;
  message: string;
  /** Of a key that is a slip: the path that was meant. */
  meant?: string;
  /** Of an unknown key: the mapping it is in, which may be wrong only for that. */
  within?: string;
}

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** All that is wrong with a recipe in one error, in the order in which it stands in the file. */
export function recipeInvalid(issues: readonly Issue[], text: RecipeText): WeldlineError {
  const schema = recipeJsonSchema();
  const problems = withoutEchoes(issues.flatMap((issue) => problemsOf(issue, text, schema)));
  const lines = problems.map(
    ({ line, column, path, message }) =>
      `${text.file}:${line}:${column} ${path === '' ? '' : `${path}: `}${message}`,
  );
  const unique = [...new Set(lines)];
  const count = unique.length === 1 ? '1 problem' : `${unique.length} problems`;
  return new WeldlineError(
    'recipe.invalid',
    `${text.file} is not a valid recipe, ${count}:\n${unique.map((line) => `  ${line}`).join('\n')}`,
    { details: { file: text.file, problems: unique } },
  );
}

/** In the order of the file, one for each place; what a slip in a key makes missing is not told too. */
function withoutEchoes(problems: readonly Problem[]): Problem[] {
  const echoes = new Set(problems.flatMap(({ meant, within }) => [meant, within]));
  const paths = new Set<string>();
  return problems
    .filter(({ path }) => !echoes.has(path) && !paths.has(path) && paths.add(path))
    .sort((a, b) => a.line - b.line || a.column - b.column);
}

function problemsOf(issue: Issue, text: RecipeText, schema: SchemaNode): Problem[] {
  const { path } = issue;
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(schemaAt(schema, path)?.properties ?? {});
    return issue.keys.map((key) => {
      const closest = closestName(key, known);
      return {
        ...text.keyPositionOf([...path, key]),
        path: dotted([...path, key]),
        message: unknownKey(key, known),
        within: dotted(path),
        ...(closest === undefined ? {} : { meant: dotted([...path, closest]) }),
      };
    });
  }
  const node = schemaAt(schema, path);
  return [
    {
      ...text.positionOf(path),
      path: dotted(path),
      message: issue.code === 'custom' ? issue.message : mismatch(text, path, node),
    },
  ];
}

function unknownKey(key: string, known: readonly string[]): string {
  const closest = closestName(key, known);
  return closest === undefined
    ? `unknown key; known here: ${known.join(', ')}`
    : `unknown key; did you mean ${closest}?`;
}

function mismatch(text: RecipeText, path: Path, node: SchemaNode | undefined): string {
  const expected = node?.description ?? 'something else';
  const value = valueAt(text.value, path);
  if (value === undefined) return `missing; expected ${expected}`;
  const source = text.sourceOf(path) ?? String(value);
  if (node?.type === 'string' && (typeof value === 'number' || typeof value === 'boolean')) {
    // YAML reads 1.10 as the number 1.1 and 1e5 as 100000: the text as written is what was meant.
    return `expected ${expected}, got the ${typeof value} ${source}; quote it: "${source}"`;
  }
  return `expected ${expected}; got ${shown(value)}${suggestion(value, node)}`;
}

/** Of a choice, what was most likely meant. */
function suggestion(value: unknown, node: SchemaNode | undefined): string {
  const choices = (node?.enum ?? []).filter((choice) => typeof choice === 'string');
  const closest = typeof value === 'string' ? closestName(value, choices) : undefined;
  return closest === undefined ? '' : `; did you mean ${closest}?`;
}

function shown(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return 'a mapping';
  const json = JSON.stringify(value);
  return json.length <= 60 ? json : `${json.slice(0, 57)}…`;
}

function schemaAt(schema: SchemaNode, path: Path): SchemaNode | undefined {
  return path.reduce<SchemaNode | undefined>((node, segment) => {
    if (typeof segment === 'number') return node?.items;
    const others = node?.additionalProperties;
    return node?.properties?.[String(segment)] ?? (typeof others === 'object' ? others : undefined);
  }, schema);
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (node, segment) => (node as Record<PropertyKey, unknown> | null | undefined)?.[segment],
    value,
  );
}

function dotted(path: Path): string {
  return path.map(String).join('.');
}
