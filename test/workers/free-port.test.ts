import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { findFreePort, isPortFree } from '../../workers/free-port.ts';

describe('findFreePort', () => {
  it('finds a port that can be listened on, below those of outgoing connections', async () => {
    const port = await findFreePort();
    expect(port).toBeGreaterThanOrEqual(20_000);
    expect(port).toBeLessThan(30_000);
    expect(await isPortFree(port)).toBe(true);
  });

  it.each(['127.0.0.1', '0.0.0.0'])(
    'does not take a port that %s listens on for free',
    async (host) => {
      const port = await findFreePort();
      const server = createServer().listen(port, host);
      await once(server, 'listening');
      expect(await isPortFree(port)).toBe(false);
      server.close();
      await once(server, 'close');
      expect(await isPortFree(port)).toBe(true);
    },
  );
});
