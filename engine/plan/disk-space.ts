import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WeldlineError } from '../errors.ts';
import { combinedFactorBytes } from './combine-deltas.ts';
import type { PlanPreview } from './plan.ts';

/** Side files, journals and the file system's own blocks: small, but not nothing. */
export const OVERHEAD_BYTES = 16 * 1024 * 1024;

/**
 * Bytes that a merge writes, with the combined factors of the shard at hand.
 * @param hasShards false where shards are sent away instead of written
 */
export function outputBytes(plan: PlanPreview, hasShards = true): number {
  const factors = plan.shards.map(({ tensors }) =>
    tensors.map(combinedFactorBytes).reduce((sum, { a, b }) => sum + a + b, 0),
  );
  const shards = hasShards ? plan.shards.reduce((sum, shard) => sum + shard.size, 0) : 0;
  const outputs = plan.sideFiles.reduce((sum, file) => sum + file.size, shards);
  return factors.reduce((a, b) => Math.max(a, b), 0) + outputs;
}

export interface SpaceNeed {
  /** A directory on the volume; it need not exist yet. */
  readonly directory: string;
  readonly bytes: number;
  readonly purpose: string;
}

interface VolumeNeed {
  readonly directory: string;
  bytes: number;
  readonly purposes: string[];
}

/**
 * Checks that every volume has room for all that will be written to it.
 *
 * @param reserved what others will write, who come first
 * @throws WeldlineError `disk.full` naming the volume, what is needed and what is free;
 *   `disk.reserved` where it is enough, but not beside what is reserved
 */
export async function checkDiskSpace(
  needs: readonly SpaceNeed[],
  reserved: readonly SpaceNeed[] = [],
): Promise<void> {
  const ofOthers = await byVolume(reserved);
  for (const [volume, { directory, bytes, purposes }] of await byVolume(needs)) {
    const { bavail, bsize } = await statfs(directory);
    const free = bavail * bsize;
    const needed = bytes + OVERHEAD_BYTES;
    const others = ofOthers.get(volume)?.bytes ?? 0;
    if (bytes === 0 || free >= needed + others) continue;
    const volumeHas =
      `The volume of ${directory} has ${gigabytes(free)} free and ${gigabytes(needed)} are ` +
      `needed (${purposes.join(', ')})`;
    const details = { freeBytes: free, neededBytes: needed };
    if (free < needed) {
      const message = `${volumeHas}. Free space or choose another place.`;
      throw new WeldlineError('disk.full', message, { details });
    }
    throw new WeldlineError(
      'disk.reserved',
      `${volumeHas}, but merges under way will still take ${gigabytes(others)}. It goes on when ` +
        'they are done; free space to have it go on sooner.',
      { details: { ...details, reservedBytes: others } },
    );
  }
}

async function byVolume(needs: readonly SpaceNeed[]): Promise<ReadonlyMap<number, VolumeNeed>> {
  const volumes = new Map<number, VolumeNeed>();
  for (const { directory: wanted, bytes, purpose } of needs) {
    const directory = await nearestExisting(wanted);
    const { dev } = await stat(directory);
    const volume = volumes.get(dev) ?? { directory, bytes: 0, purposes: [] };
    volume.bytes += bytes;
    volume.purposes.push(purpose);
    volumes.set(dev, volume);
  }
  return volumes;
}

async function nearestExisting(path: string): Promise<string> {
  try {
    await stat(path);
    return path;
  } catch {
    const parent = dirname(path);
    return nearestExisting(parent);
  }
}

function gigabytes(bytes: number): string {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
