import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { HubConnection, HubPatience } from '../../sources/hub-connection.ts';
import { type HubServer, type HubServerOptions, startHubServer } from './hub-server.ts';

/** Revision → path → content. */
export type TestRepository = Readonly<Record<string, Readonly<Record<string, Buffer | string>>>>;

export interface TestHub extends HubServer {
  /** Empty at first, removed at the end. */
  readonly cacheDirectory: string;
  connection(token?: string): HubConnection;
  write(repo: string, revision: string, filePath: string, content: Buffer | string): Promise<void>;
  /** GET requests that moved file content. */
  contentRequests(): number;
  contentBytes(): number;
}

/** Short waits: the tests check that there are some, not how long they are. */
const PATIENCE: HubPatience = {
  attemptsMax: 4,
  delayMs: 10,
  delayMsMax: 50,
  retryAfterMsMax: 2_000,
  stallTimeoutMs: 1500,
};

export async function startTestHub(
  repositories: Readonly<Record<string, TestRepository>>,
  options: Omit<HubServerOptions, 'root'> = {},
): Promise<TestHub> {
  const directory = await mkdtemp(path.join(tmpdir(), 'weldline-hub-'));
  const root = path.join(directory, 'root');
  const write: TestHub['write'] = async (repo, revision, filePath, content) => {
    const target = path.join(root, repo, encodeURIComponent(revision), filePath);
    await mkdir(path.dirname(target), { recursive: true });
    await writeFile(target, content);
  };
  for (const [repo, revisions] of Object.entries(repositories)) {
    for (const [revision, files] of Object.entries(revisions)) {
      for (const [name, content] of Object.entries(files)) {
        await write(repo, revision, name, content);
      }
    }
  }
  const server = await startHubServer({ root, ...options });
  const moved = () =>
    server.requests.filter(({ target, bytesSent }) => target !== 'api' && bytesSent);
  return {
    ...server,
    cacheDirectory: path.join(directory, 'cache'),
    connection: (token) => ({ endpoint: server.endpoint, token, patience: PATIENCE }),
    write,
    contentRequests: () => moved().length,
    contentBytes: () => moved().reduce((sum, { bytesSent }) => sum + bytesSent, 0),
    async close() {
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
