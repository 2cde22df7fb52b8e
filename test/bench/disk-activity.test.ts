import { describe, expect, it } from 'vitest';
import { parseDiskStats } from '../../bench/disk-activity.ts';

const DISK_STATS = `   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 259       5 nvme0n1p1 60315 22459 1875874 7135 9435 53050 3521424 14760 0 5648 22120 3377 13 214960 219 240 5
 259     300 nvme9n1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17
`;

describe('parseDiskStats', () => {
  it('finds the device by its numbers', () => {
    expect(parseDiskStats(DISK_STATS, 259 * 256 + 5)).toEqual({
      readSectors: 1_875_874,
      writtenSectors: 3_521_424,
      busyMs: 5648,
    });
  });

  it('reads minor numbers of more than a byte', () => {
    // glibc's makedev: the upper bits of the minor number are above the major one.
    const device = (259 << 8) | (300 & 0xff) | ((300 & ~0xff) << 12);
    expect(parseDiskStats(DISK_STATS, device)?.busyMs).toBe(10);
  });

  it('finds nothing of a file system without a device', () => {
    expect(parseDiskStats(DISK_STATS, 42)).toBeUndefined();
  });
});
