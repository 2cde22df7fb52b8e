import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface PackageRegistry {
  readonly url: string;
  /** Packages whose files were asked for. */
  readonly served: readonly string[];
  close(): Promise<void>;
}

/** A registry of npm that knows every package in every version, and has the same bytes for all. */
export async function startPackageRegistry(
  versions: ReadonlyMap<string, string>,
): Promise<PackageRegistry> {
  const served: string[] = [];
  let url = '';
  const server = createServer((request, response) => {
    const name = decodeURIComponent(request.url ?? '').slice(1);
    if (name.endsWith('.tgz')) {
      served.push(name);
      response.end(Buffer.from('not the package that was locked'));
      return;
    }
    const version = versions.get(name) ?? '0.0.0';
    const dist = { tarball: `${url}${name}-${version}.tgz` };
    const latest = { name, version, dist };
    const text = { name, 'dist-tags': { latest: version }, versions: { [version]: latest } };
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(text));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { url, served, close };
}
