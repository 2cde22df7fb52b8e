import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { readEnvironment } from '../../config/environment.ts';

export const ROOT = join(import.meta.dirname, '../..');

export interface ComposeService {
  readonly image: string;
  readonly build?: { readonly context: string; readonly args: Readonly<Record<string, string>> };
  readonly restart: string;
  readonly stop_grace_period?: string;
  readonly profiles?: readonly string[];
  readonly command?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly healthcheck?: object;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly networks?: readonly string[];
}

export interface ComposeProject {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly networks: Readonly<Record<string, unknown>>;
}

export function readText(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

/** What is laid over the project with a second `--file`. */
export const OVERLAYS = ['deploy/compose.gpu.yml', 'deploy/compose.monitoring.yml'];

export function readProject(path = 'docker-compose.yml'): ComposeProject {
  return parse(readText(path), { merge: true }) as ComposeProject;
}

/** The environment of a service as Compose gives it to its container. */
export function environmentOf(
  { environment = {} }: ComposeService,
  settings: ReadonlyMap<string, string>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, interpolate(value, settings)]),
  );
}

/** `${NAME:-default}` and `${NAME:?message}`, the two forms that the file uses. */
function interpolate(text: string, settings: ReadonlyMap<string, string>): string {
  return text.replace(/\$\{(\w+):([-?])([^}]*)\}/g, (_, name: string, kind, rest: string) => {
    const value = settings.get(name) ?? '';
    if (value !== '') return value;
    if (kind === '-') return rest;
    throw new Error(`${name}: ${rest}`);
  });
}

/** All services that must be up, or have ended, before one is started. */
export function startedBefore(project: ComposeProject, name: string): Set<string> {
  const found = new Set<string>();
  const visit = (service: string): void => {
    for (const dependency of Object.keys(project.services[service]?.depends_on ?? {})) {
      if (dependency === name) throw new Error(`${name} waits for itself, through ${service}`);
      if (found.has(dependency)) continue;
      found.add(dependency);
      visit(dependency);
    }
  };
  visit(name);
  return found;
}

/** Names and values of a file of `NAME=value` lines. */
export function parseEnvironmentFile(text: string): Map<string, string> {
  return new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => {
        const at = line.indexOf('=');
        return [line.slice(0, at), line.slice(at + 1)];
      }),
  );
}

/** The variables that weldline reads, itself or through the libraries of Temporal and S3. */
export function variablesRead(): Set<string> {
  const read = new Set([
    ...['TEMPORAL_NAMESPACE', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_REGION'],
    'AWS_SHARED_CREDENTIALS_FILE',
  ]);
  const watched = new Proxy(
    {},
    {
      get: (_, name) => {
        read.add(String(name));
        return undefined;
      },
    },
  );
  readEnvironment(watched);
  return read;
}
