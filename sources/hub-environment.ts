import path from 'node:path';
import { DEFAULT_HUB_ENDPOINT } from './hub-connection.ts';

export type EnvironmentRecord = Readonly<Record<string, string | undefined>>;

/**
 * Where the official clients keep what they downloaded, by their own rules, first match wins:
 * `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` (older name), `HF_HOME`/hub,
 * `XDG_CACHE_HOME`/huggingface/hub, `~/.cache/huggingface/hub`. `~` and `$NAME` are expanded.
 */
export function hubCacheDirectory(environment: EnvironmentRecord, homeDirectory: string): string {
  const named = environment['HF_HUB_CACHE'] ?? environment['HUGGINGFACE_HUB_CACHE'];
  return named === undefined
    ? path.join(hubHome(environment, homeDirectory), 'hub')
    : expand(named, environment, homeDirectory);
}

/** Where `hf auth login` leaves the token, for when `HF_TOKEN` is not set. */
export function hubTokenPath(environment: EnvironmentRecord, homeDirectory: string): string {
  const named = environment['HF_TOKEN_PATH'];
  return named === undefined
    ? path.join(hubHome(environment, homeDirectory), 'token')
    : expand(named, environment, homeDirectory);
}

export function hubEndpoint(environment: EnvironmentRecord): string {
  return environment['HF_ENDPOINT']?.replace(/\/+$/, '') || DEFAULT_HUB_ENDPOINT;
}

function hubHome(environment: EnvironmentRecord, homeDirectory: string): string {
  const named = environment['HF_HOME'];
  if (named !== undefined) return expand(named, environment, homeDirectory);
  const cache = environment['XDG_CACHE_HOME'] ?? path.join(homeDirectory, '.cache');
  return path.join(expand(cache, environment, homeDirectory), 'huggingface');
}

function expand(value: string, environment: EnvironmentRecord, homeDirectory: string): string {
  const expanded = value.replace(
    /\$(?:(\w+)|\{(\w+)\})/g,
    (whole, bare: string | undefined, braced: string | undefined) =>
      environment[bare ?? braced ?? ''] ?? whole,
  );
  return expanded === '~' || expanded.startsWith('~/')
    ? path.join(homeDirectory, expanded.slice(1))
    : expanded;
}
