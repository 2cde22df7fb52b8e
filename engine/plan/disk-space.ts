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

/**
 * Checks that every volume has room for all that will be written to it.
 * @throws WeldlineError `disk.full` naming the volume, what is needed and what is free
 */
export async function checkDiskSpace(needs: readonly SpaceNeed[]): Promise<void> {
  const byVolume = new Map<number, { need: SpaceNeed; bytes: number; purposes: string[] }>();
  for (const need of needs) {
    const directory = await nearestExisting(need.directory);
    const { dev } = await stat(directory);
    const volume = byVolume.get(dev) ?? { need: { ...need, directory }, bytes: 0, purposes: [] };
    volume.bytes += need.bytes;
    volume.purposes.push(need.purpose);
    byVolume.set(dev, volume);
  }
  for (const { need, bytes, purposes } of byVolume.values()) {
    const { bavail, bsize } = await statfs(need.directory);
    const free = bavail * bsize;
    const needed = bytes + OVERHEAD_BYTES;
    if (bytes > 0 && free < needed) {
      throw new WeldlineError(
        'disk.full',
        `The volume of ${need.directory} has ${gigabytes(free)} free and ${gigabytes(needed)} are ` +
          `needed (${purposes.join(', ')}). Free space or choose another place.`,
        { details: { freeBytes: free, neededBytes: needed } },
      );
    }
  }
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
