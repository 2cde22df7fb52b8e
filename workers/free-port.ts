import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { WeldlineError } from '../engine/errors.ts';

/**
 * Below the ranges from which systems take the ports of outgoing connections (Linux from 32768,
 * macOS from 49152) and from which Kubernetes takes its own (from 30000). A client that keeps
 * dialling a port of those ranges while the server is down can be given that very port, connect to
 * itself and so keep the server from coming back.
 */
const PORT_MIN = 20_000;
const PORT_MAX = 29_999;
const ATTEMPTS_MAX = 100;

/** A port of 127.0.0.1 that nobody listens on now. */
export async function findFreePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const port = randomInt(PORT_MIN, PORT_MAX + 1);
    if (await isPortFree(port)) return port;
  }
  throw new WeldlineError(
    'temporal.start-failed',
    `No free port between ${PORT_MIN} and ${PORT_MAX} was found on 127.0.0.1 for the embedded ` +
      'server. Set TEMPORAL_ADDRESS to use a server of your own.',
  );
}

export async function isPortFree(port: number): Promise<boolean> {
  return await new Promise((settle) => {
    const probe = createServer();
    probe.once('error', () => settle(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      probe.close(() => settle(true));
    });
  });
}
