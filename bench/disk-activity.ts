import { readFileSync, statSync } from 'node:fs';
import type { DiskActivity } from './measurement.ts';

/** The unit of /proc/diskstats, whatever the device's own. */
const SECTOR_BYTES = 512;

interface Counters {
  readonly readSectors: number;
  readonly writtenSectors: number;
  readonly busyMs: number;
}

/**
 * Starts to watch the block device that holds `directory`.
 * @returns a function that tells what happened since; it returns undefined where the system does
 *   not tell: outside Linux, and on file systems without one block device (overlays, btrfs, NFS)
 */
export function watchDisk(directory: string): () => DiskActivity | undefined {
  const { dev } = statSync(directory);
  const before = readCounters(dev);
  const startedAt = performance.now();
  return () => {
    const after = readCounters(dev);
    if (before === undefined || after === undefined) return undefined;
    return {
      busyShare: Math.min(1, (after.busyMs - before.busyMs) / (performance.now() - startedAt)),
      readBytes: (after.readSectors - before.readSectors) * SECTOR_BYTES,
      writtenBytes: (after.writtenSectors - before.writtenSectors) * SECTOR_BYTES,
    };
  };
}

function readCounters(device: number): Counters | undefined {
  try {
    return parseDiskStats(readFileSync('/proc/diskstats', 'utf8'), device);
  } catch {
    return undefined;
  }
}

/**
 * The line of one device; its columns are in the kernel's Documentation/admin-guide/iostats.rst.
 * @param device as `stat` gives it: glibc's encoding of major and minor
 */
export function parseDiskStats(text: string, device: number): Counters | undefined {
  const number = BigInt(device);
  const major = Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn));
  const minor = Number((number & 0xffn) | ((number >> 12n) & 0xffffff00n));
  for (const line of text.split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (Number(fields[0]) !== major || Number(fields[1]) !== minor) continue;
    const [, , , , , readSectors, , , , writtenSectors, , , busyMs] = fields.map(Number);
    if (readSectors === undefined || writtenSectors === undefined || busyMs === undefined) break;
    return { readSectors, writtenSectors, busyMs };
  }
  return undefined;
}
