import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { childVariables } from '../../config/environment.ts';
import { Secret } from '../../config/secret.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';

/** What Docker's configuration has for a registry. */
export type RegistryCredentials =
  | { readonly username: string; readonly password: Secret }
  /** Exchanged for access tokens. */
  | { readonly identityToken: Secret };

/** Docker's own file says it so. */
const DOCKER_HUB_KEY = 'index.docker.io';
/** Helpers ask key rings, which ask people. */
const HELPER_TIMEOUT_MS = 60_000;
/** Helpers say it so when they have none. */
const NOT_FOUND = /credentials not found/i;

interface DockerConfig {
  readonly auths?: Readonly<Record<string, AuthEntry>>;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly credsStore?: string;
}

interface AuthEntry {
  /** Base64 of `username:password`. */
  readonly auth?: string;
  readonly username?: string;
  readonly password?: string;
  readonly identitytoken?: string;
}

/**
 * Credentials of a registry as `docker login` and `oras login` leave them: a helper's where one is
 * configured (`credHelpers`, `credsStore`), those of `auths` otherwise.
 * @param directory of `config.json`
 * @returns undefined where there are none
 * @throws WeldlineError `config.invalid` for a file or helper that cannot be used; quotes neither
 */
export async function readDockerCredentials(
  directory: string,
  registry: string,
): Promise<RegistryCredentials | undefined> {
  const path = join(directory, 'config.json');
  const config = await readConfig(path);
  const host = registry === 'docker.io' ? DOCKER_HUB_KEY : registry;
  const helper = memberFor(config.credHelpers, host)?.[1] ?? config.credsStore;
  const [key, entry] = memberFor(config.auths, host) ?? [];
  if (typeof helper === 'string' && helper !== '') {
    const server = host === DOCKER_HUB_KEY ? `https://${host}/v1/` : (key ?? host);
    const found = await askHelper(helper, server, path);
    if (found !== undefined) return found;
  }
  return entry === undefined ? undefined : toCredentials(entry, path, registry);
}

async function readConfig(path: string): Promise<DockerConfig> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof value === 'object' && value !== null) return value;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return {};
    if (code !== undefined) throw invalid(path, `cannot be read (${code})`);
  }
  throw invalid(path, 'is not a JSON object');
}

/** Keys may be addresses: `https://registry.example.com/v1/`. */
function memberFor<T>(
  members: Readonly<Record<string, T>> | undefined,
  host: string,
): readonly [string, T] | undefined {
  return Object.entries(members ?? {}).find(
    ([key]) => key.replace(/^https?:\/\//, '').replace(/\/.*$/, '') === host,
  );
}

function toCredentials(
  entry: AuthEntry,
  path: string,
  registry: string,
): RegistryCredentials | undefined {
  if (entry.identitytoken) return { identityToken: new Secret(entry.identitytoken) };
  if (entry.username && entry.password) {
    return { username: entry.username, password: new Secret(entry.password) };
  }
  if (!entry.auth) return undefined;
  const pair = Buffer.from(String(entry.auth), 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  if (colon < 1) throw invalid(path, `has an "auth" for ${registry} that is no user and password`);
  return { username: pair.slice(0, colon), password: new Secret(pair.slice(colon + 1)) };
}

async function askHelper(
  helper: string,
  server: string,
  path: string,
): Promise<RegistryCredentials | undefined> {
  if (!/^[\w.-]+$/.test(helper)) throw invalid(path, 'names a credential helper that is no name');
  const program = `docker-credential-${helper}`;
  const answer = await new Promise<{ error: Error | null; stdout: string }>((resolve) => {
    const options = { env: childVariables(), timeout: HELPER_TIMEOUT_MS };
    const child = execFile(program, ['get'], options, (error, stdout) =>
      resolve({ error, stdout }),
    );
    // One that does not run, or does not read, is told by its error.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(server);
  });
  if (answer.error !== null) {
    if (NOT_FOUND.test(answer.stdout)) return undefined;
    const { code, signal } = answer.error as { code?: unknown; signal?: unknown };
    throw invalid(path, `names ${program}, which fails (${signal ?? code})`);
  }
  const { Username: username, Secret: password } = parseAnswer(answer.stdout);
  if (typeof username !== 'string' || typeof password !== 'string') {
    throw invalid(path, `names ${program}, which does not answer as a credential helper does`);
  }
  return username === '<token>'
    ? { identityToken: new Secret(password) }
    : { username, password: new Secret(password) };
}

function parseAnswer(text: string): { Username?: unknown; Secret?: unknown } {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

function invalid(path: string, problem: string): WeldlineError {
  return new WeldlineError(
    'config.invalid',
    `${path} ${problem}. Log in to the registry again (docker login, oras login), or point ` +
      'DOCKER_CONFIG at another directory.',
  );
}
