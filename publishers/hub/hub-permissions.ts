import { WeldlineError } from '../../engine/errors.ts';
import { nameOf, readJson } from './hub-answers.ts';
import type { HubApi } from './hub-api.ts';

/**
 * @param name of what shall be written, for the error
 * @throws WeldlineError `publish.unauthorized`
 */
export function requireToken(api: HubApi, name: string): void {
  if (api.access.token !== undefined) return;
  const error = new WeldlineError('publish.unauthorized', `${name}: there is no token.`);
  throw api.explained(error);
}

/**
 * Checks what can be known of a token before anything is written.
 * @throws WeldlineError `publish.unauthorized`, and what requests throw
 */
export async function requireWriter(api: HubApi, repo: string, signal: AbortSignal): Promise<void> {
  const name = nameOf(repo);
  requireToken(api, name);
  const answer = await readJson(await api.call({ path: '/api/whoami-v2', name, signal }), name);
  const who = (answer ?? {}) as Record<string, unknown>;
  const auth = who['auth'] as { accessToken?: { role?: unknown } } | undefined;
  const role = auth?.accessToken?.role;
  const owner = repo.split('/')[0];
  const orgs = Array.isArray(who['orgs']) ? (who['orgs'] as { name?: unknown }[]) : [];
  const isMember = who['name'] === owner || orgs.some((org) => org?.name === owner);
  const refuse = (problem: string): never => {
    throw api.explained(new WeldlineError('publish.unauthorized', `${name}: ${problem}.`));
  };
  if (role === 'read') refuse('the token may only read');
  // Of other kinds of tokens only the hub knows what they may do.
  if (role === 'write' && !isMember) {
    refuse(`the token is of ${String(who['name'])}, who is not a member of ${owner}`);
  }
}

/**
 * What is meant to be private must not become public because somebody made the repository so.
 * @throws WeldlineError `publish.rejected`, and what requests throw
 */
export async function requirePrivate(api: HubApi, repo: string, signal: AbortSignal) {
  if (!(await api.isPublic(repo, signal))) return;
  throw new WeldlineError(
    'publish.rejected',
    `${nameOf(repo)} is public, and the recipe says "private: true". Make the repository private ` +
      'in its settings, or leave "private" out.',
  );
}
