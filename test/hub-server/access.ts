import type { IncomingMessage } from 'node:http';

export interface AccessRules {
  /** Repositories that only holders of one of the tokens may see. */
  readonly privateRepositories?: Readonly<Record<string, readonly string[]>>;
  /** Repositories anybody may list, but only holders of one of the tokens may download from. */
  readonly gatedRepositories?: Readonly<Record<string, readonly string[]>>;
}

export interface Refusal {
  readonly status: number;
  readonly errorCode: string;
  readonly message: string;
}

/** Whether the hub refuses a request, in the words and statuses of the hub. */
export function refusalOf(
  rules: AccessRules,
  request: IncomingMessage,
  repo: string,
  downloads: boolean,
): Refusal | undefined {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
  const members = rules.privateRepositories?.[repo];
  if (members !== undefined && (token === undefined || !members.includes(token))) {
    return missingRepository(token !== undefined);
  }
  const accepted = rules.gatedRepositories?.[repo];
  if (downloads && accepted !== undefined && (token === undefined || !accepted.includes(token))) {
    return {
      status: token === undefined ? 401 : 403,
      errorCode: 'GatedRepo',
      message: `Access to model ${repo} is restricted.`,
    };
  }
  return undefined;
}

/** Without a token the hub does not tell a missing repository from a private one. */
export function missingRepository(hasToken: boolean): Refusal {
  return {
    status: hasToken ? 404 : 401,
    errorCode: 'RepoNotFound',
    message: hasToken ? 'Repository not found' : 'Invalid username or password.',
  };
}
