import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Accounts, accountOf, isMember, requireWriter, whoAmI } from './accounts.ts';
import { Refused, readBody, readJson, refuse, sendJson } from './answers.ts';
import { type CatalogCommit, type CatalogRepository, findCommit, isLfs } from './catalog.ts';
import { answerBatch, finishUpload, type LfsOptions } from './lfs-api.ts';
import { pathsInfo } from './model-api.ts';
import {
  applyCommit,
  type BranchRequest,
  createBranch,
  createRepository,
  createTag,
  deleteRef,
} from './model-writes.ts';
import type { XetStore } from './xet-store.ts';

export interface WriteApiOptions extends Omit<LfsOptions, 'hubOrigin'> {
  readonly accounts: Accounts;
  readonly xet: XetStore;
  readonly storageOrigin: string;
  readonly repositories: () => Map<string, CatalogRepository>;
}

interface CreateRequest {
  readonly name: string;
  readonly organization: string | null;
  readonly visibility: string;
  readonly private: boolean;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly options: WriteApiOptions;
}

const REPOSITORY_CALL =
  /^\/api\/models\/(.+?)\/(preupload|commit|tag|branch|refs|commits|paths-info|xet-write-token)(?:\/([^/]+))?$/;
const BATCH_CALL = /^\/(.+?)\.git\/info\/lfs\/objects\/batch$/;

/** Whether a request is one of those that only come with writing. */
export function isWriteCall({ pathname }: URL): boolean {
  return (
    /^\/api\/(whoami-v2|repos\/create|models|complete_multipart|lfs-verify)$/.test(pathname) ||
    REPOSITORY_CALL.test(pathname) ||
    BATCH_CALL.test(pathname)
  );
}

export async function serveWriteCall(call: Call): Promise<void> {
  try {
    await route(call);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refuse(call.response, error.refusal);
  }
}

async function route(call: Call): Promise<void> {
  const { request, response, url, options } = call;
  const batch = BATCH_CALL.exec(url.pathname)?.[1];
  const repositoryCall = REPOSITORY_CALL.exec(url.pathname);
  if (batch !== undefined) {
    const repo = decodeURIComponent(batch);
    requireWriter(options.accounts, request, repo);
    requireRepository(call, repo);
    return answerBatch(request, response, repo, { ...options, hubOrigin: url.origin });
  }
  if (repositoryCall !== null) {
    const [, repo, kind, name = ''] = repositoryCall;
    return onRepository(call, decodeURIComponent(repo!), kind!, decodeURIComponent(name));
  }
  if (url.pathname === '/api/whoami-v2') {
    const account = accountOf(options.accounts, request);
    if (account === undefined)
      throw new Refused(401, 'Invalid credentials in Authorization header');
    return sendJson(response, whoAmI(account));
  }
  if (url.pathname === '/api/models') return listModels(call);
  if (url.pathname === '/api/repos/create') return create(call);
  return finishUpload(request, response, url, options.objects);
}

async function create({ request, response, url, options }: Call): Promise<void> {
  const asked = await readJson<CreateRequest>(request);
  const owner = asked.organization ?? accountOf(options.accounts, request)?.name ?? '';
  const id = `${owner}/${asked.name}`;
  requireWriter(options.accounts, request, id);
  const answer = { url: `${url.origin}/${id}`, name: id, id };
  if (options.repositories().has(id)) {
    sendJson(response, { ...answer, error: 'You already created this model repo' }, 409);
    return;
  }
  const isPrivate = asked.private ?? asked.visibility === 'private';
  const made = await createRepository(id, isPrivate, options.objects);
  options.repositories().set(id, made);
  sendJson(response, answer);
}

function listModels({ request, response, url, options }: Call): void {
  const { author, search = '' } = Object.fromEntries(url.searchParams);
  const account = accountOf(options.accounts, request);
  const found = [...options.repositories().values()].filter(
    ({ id, isPrivate }) =>
      (author === undefined || id.startsWith(`${author}/`)) &&
      id.includes(search) &&
      (!isPrivate || isMember(account, id)),
  );
  sendJson(
    response,
    found.map(({ id, isPrivate }) => ({ _id: id, id, modelId: id, private: isPrivate, tags: [] })),
  );
}

async function onRepository(call: Call, repo: string, kind: string, name: string): Promise<void> {
  const { request, response, options } = call;
  const reads = request.method === 'GET' || kind === 'paths-info';
  if (!reads) requireWriter(options.accounts, request, repo);
  const repository = requireRepository(call, repo);
  if (kind === 'xet-write-token') {
    requireWriter(options.accounts, request, repo);
    return sendJson(response, options.xet.tokenFor(repo, options.storageOrigin));
  }
  if (kind === 'refs') return sendJson(response, refs(repository));
  if (kind === 'commits') return sendJson(response, history(requireCommit(repository, name)));
  if (kind === 'paths-info') {
    const text = (await readBody(request)).toString('utf8');
    const isForm = request.headers['content-type']?.includes('form') === true;
    const paths = isForm
      ? new URLSearchParams(text).getAll('paths')
      : (JSON.parse(text) as { paths: string[] }).paths;
    return sendJson(response, pathsInfo(requireCommit(repository, name), paths));
  }
  if (kind === 'preupload') return preupload(call);
  if (kind === 'commit') {
    const text = (await readBody(request)).toString('utf8');
    const { sha } = await applyCommit(repository, name, text, options.objects);
    const commitUrl = `${call.url.origin}/${repo}/commit/${sha}`;
    return sendJson(response, { success: true, commitOid: sha, commitUrl, hookOutput: '' });
  }
  if (request.method === 'DELETE') deleteRef(repository, name, kind === 'tag' ? 'tag' : 'branch');
  else if (kind === 'tag') {
    const { tag = '' } = await readJson<{ tag: string }>(request);
    createTag(repository, name, tag);
  } else createBranch(repository, name, await readJson<BranchRequest>(request));
  response.writeHead(200).end('OK');
}

async function preupload({ request, response }: Call): Promise<void> {
  const asked = await readJson<{ files: { path: string; size: number }[] }>(request);
  const files = asked.files?.map(({ path, size }) => ({
    path,
    uploadMode: isLfs(path, size) ? 'lfs' : 'regular',
    shouldIgnore: false,
  }));
  sendJson(response, { files });
}

function requireRepository({ request, options }: Call, id: string): CatalogRepository {
  const repository = options.repositories().get(id);
  const account = accountOf(options.accounts, request);
  if (repository !== undefined && (!repository.isPrivate || isMember(account, id))) {
    return repository;
  }
  const hasToken = request.headers.authorization !== undefined;
  throw new Refused(hasToken ? 404 : 401, 'Repository not found', 'RepoNotFound');
}

function requireCommit(repository: CatalogRepository, revision: string): CatalogCommit {
  const commit = findCommit(repository, revision);
  if (commit !== undefined) return commit;
  throw new Refused(404, `Invalid rev id: ${revision}`, 'RevisionNotFound');
}

function refs({ revisions, tags }: CatalogRepository): object {
  const all = [...revisions].map(([name, { sha }]) => {
    const kind = tags.has(name) ? 'tags' : 'heads';
    return { name, ref: `refs/${kind}/${name}`, targetCommit: sha };
  });
  const isTag = ({ ref }: { ref: string }) => ref.startsWith('refs/tags/');
  return { branches: all.filter((ref) => !isTag(ref)), tags: all.filter(isTag), converts: [] };
}

function history(commit: CatalogCommit): object[] {
  const commits = [];
  for (let at: CatalogCommit | undefined = commit; at !== undefined; at = at.parent) {
    commits.push({ id: at.sha, title: at.title, message: '', authors: [], date: DATE });
  }
  return commits;
}

const DATE = '2026-01-01T00:00:00.000Z';
