/**
 * A server on this machine that speaks the protocol of the Hugging Face hub over a directory tree:
 * model information, file listings by page, file addresses with redirects to a storage host of
 * another origin, uploads and commits, access control, and faults on demand. The official Python client
 * works against it with `HF_ENDPOINT`.
 */
import type { AccessRules } from './access.ts';
import type { Accounts } from './accounts.ts';
import { findCommit, readCatalog } from './catalog.ts';
import type { Fault, Target } from './faults.ts';
import { HubService } from './hub-service.ts';
import { closeServer, listen, originOf } from './listen.ts';
import { StorageLinks } from './storage-links.ts';

export interface HubServerOptions extends AccessRules {
  readonly root: string;
  /** Port of the hub; the storage host always gets a free one. */
  readonly port?: number;
  /** Entries on a page of a listing; the hub has 1,000. */
  readonly pageSize?: number;
  /** How long a link to storage is good for. */
  readonly linkLifeMs?: number;
  /** Speed of each connection. */
  readonly bytesPerSecond?: number;
  /** Who may write, and what; nobody if not given. */
  readonly accounts?: Accounts;
  /** Objects above this go up in parts of this many bytes. */
  readonly partBytes?: number;
  /** Larger objects are refused, as the hub does above a quota. */
  readonly objectBytesMax?: number;
  /** Whether objects may go up by Xet. */
  readonly hasXet?: boolean;
  /** Whether objects go up to the hub's own origin, so that a proxy before it sees them. */
  readonly uploadsAtHub?: boolean;
}

export interface LoggedRequest {
  readonly target: Target;
  readonly method: string;
  /** Path of the file in the repository; for the API, of the URL. */
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  bytesSent: number;
  /** Of an upload's body. */
  bytesReceived: number;
}

export interface HubServer {
  readonly endpoint: string;
  /** Origin of the storage host. */
  readonly storage: string;
  readonly requests: LoggedRequest[];
  inject(fault: Fault): void;
  clearFaults(): void;
  /** Reads the tree again: branches move to new commits. */
  reload(): Promise<void>;
  /** The commit a revision names. */
  commitOf(repo: string, revision: string): string;
  close(): Promise<void>;
}

export async function startHubServer(options: HubServerOptions): Promise<HubServer> {
  const service = new HubService(options, await readCatalog(options.root));
  const hub = await listen(options.port ?? 0, (...call) => service.serveHub(...call));
  const storage = await listen(0, (...call) => service.serveStorage(...call));
  service.links = new StorageLinks(originOf(storage), options.linkLifeMs);
  service.storageOrigin = originOf(storage);
  service.uploadOrigin = originOf(options.uploadsAtHub ? hub : storage);
  return {
    endpoint: originOf(hub),
    storage: originOf(storage),
    requests: service.requests,
    inject: (fault) => service.faults.add(fault),
    clearFaults: () => service.faults.clear(),
    async reload() {
      service.repositories = await readCatalog(options.root);
    },
    commitOf(repo, revision) {
      const repository = service.repositories.get(repo);
      const commit = repository && findCommit(repository, revision);
      if (commit === undefined) throw new Error(`no revision ${revision} of ${repo}`);
      return commit.sha;
    },
    async close() {
      await Promise.all([hub, storage].map(closeServer));
    },
  };
}
