import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { WeldlineError } from '../engine/errors.ts';

/** A variable of the environment, trimmed; undefined where it is absent or empty. */
export type Get = (name: string) => string | undefined;

/** What is wrong with a variable and what it may be. */
export function invalid(
  name: string,
  problem: string,
  expected: string,
  cause?: unknown,
): WeldlineError {
  return new WeldlineError(
    'config.invalid',
    `The environment variable ${name} ${problem}. Set it to ${expected}, or unset it.`,
    { cause, details: { variable: name } },
  );
}

/** An absolute path. @throws WeldlineError `config.invalid` for what no path can be */
export function toPath(name: string, value: string): string {
  if (value.includes('\0')) throw invalid(name, 'holds a NUL byte', 'a path');
  return resolve(expandHome(value));
}

/** Variables set in files (`.env`, CI settings) reach us with their `~` unexpanded. */
export function expandHome(value: string): string {
  return value === '~' || value.startsWith('~/') ? join(homedir(), value.slice(1)) : value;
}

/** A server's URL without what must not stand in one; no slash at its end. */
export function readEndpoint(name: string, value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw invalid(name, 'is not a URL', 'a URL such as https://huggingface.co');
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw invalid(
      name,
      'holds credentials, a query or a fragment',
      'the bare URL of the server; credentials have variables of their own, such as HF_TOKEN',
    );
  }
  return value.replace(/\/+$/, '');
}
