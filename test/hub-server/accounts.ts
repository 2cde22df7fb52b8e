import type { IncomingMessage } from 'node:http';
import { Refused } from './answers.ts';

/** Whose a token is, and what it may do. */
export interface Account {
  readonly name: string;
  readonly role: 'read' | 'write';
  readonly orgs?: readonly string[];
}

/** By token. */
export type Accounts = Readonly<Record<string, Account>>;

export function accountOf(accounts: Accounts, request: IncomingMessage): Account | undefined {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
  return token === undefined ? undefined : accounts[token];
}

export function isMember(account: Account | undefined, repo: string): boolean {
  const namespace = repo.split('/')[0]!;
  return account !== undefined && [account.name, ...(account.orgs ?? [])].includes(namespace);
}

/** @throws Refused in the words of the hub */
export function requireWriter(accounts: Accounts, request: IncomingMessage, repo: string): Account {
  const account = accountOf(accounts, request);
  if (account === undefined) throw new Refused(401, 'Invalid username or password.');
  if (account.role !== 'write') {
    throw new Refused(403, 'Forbidden: you must use a write token to upload to a repository.');
  }
  if (!isMember(account, repo)) {
    const namespace = repo.split('/')[0];
    throw new Refused(403, `You don't have the rights to write under the namespace "${namespace}"`);
  }
  return account;
}

/** Body of `/api/whoami-v2`. */
export function whoAmI({ name, role, orgs = [] }: Account): object {
  return {
    type: 'user',
    id: name,
    name,
    fullname: name,
    orgs: orgs.map((org) => ({ type: 'org', id: org, name: org, roleInOrg: 'admin' })),
    auth: { type: 'access_token', accessToken: { displayName: 'test', role } },
  };
}
