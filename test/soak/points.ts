/** How far a release is, as anybody can see who looks at its disk and its network. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Point } from './draw-round.ts';
import type { RoundPlace, SoakWorld } from './soak-world.ts';

type Look = (world: SoakWorld, place: RoundPlace) => Promise<boolean>;

/** Hub and bucket must have forgotten the requests of other rounds. */
const LOOKS: Readonly<Record<Point, Look>> = {
  start: async () => true,
  fetch: async ({ hub }) =>
    hub.requests.some(({ target, bytesSent }) => target === 'storage' && bytesSent > 0),
  merge: (_, { home }) => anyMerge(home, 'staging/files'),
  seal: (_, { home }) => anyMerge(home, 'sealed'),
  convert: (_, { home }) => hasEntries(join(home, 'conversions')),
  evaluate: (_, { home }) => hasEntries(join(home, 'evaluations', 'results')),
  publish: (_, { target }) => hasEntries(target),
  upload: async (world, place) => hasPut(world, `/models/${place.prefix}merged-`),
  alias: async (world, place) => hasPut(world, `/models/${place.prefix}aliases/`),
  report: (_, { home }) => hasEntries(join(home, 'reports')),
};

export function isReached(point: Point, world: SoakWorld, place: RoundPlace): Promise<boolean> {
  return LOOKS[point](world, place);
}

async function anyMerge(home: string, inside: string): Promise<boolean> {
  const merges = join(home, 'merges');
  const found = await Promise.all(
    (await entriesOf(merges)).map((name) => hasEntries(join(merges, name, inside))),
  );
  return found.includes(true);
}

async function hasEntries(directory: string): Promise<boolean> {
  return (await entriesOf(directory)).length > 0;
}

/** Names in a directory; none where there is no such directory. */
export async function entriesOf(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch(() => []);
}

function hasPut({ s3 }: SoakWorld, prefix: string): boolean {
  return s3.requests.some(({ method, path }) => method === 'PUT' && path.startsWith(prefix));
}
