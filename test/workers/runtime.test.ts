import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { createLogger } from '../../workers/logger.ts';
import { installRuntime } from '../../workers/runtime.ts';
import { startTracing } from '../../workers/tracing.ts';

const logger = createLogger('error');

/** A port that somebody listens on, and does not answer well. */
async function takenPort(): Promise<number> {
  const server = createServer((_request, response) => response.writeHead(500).end());
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

describe('metrics', () => {
  it('where another listens already are an error that says so', async () => {
    const address = `127.0.0.1:${await takenPort()}`;
    expect(() => installRuntime(logger, address)).toThrow(
      expect.objectContaining({
        code: 'config.invalid',
        message: expect.stringMatching(
          new RegExp(`WELDLINE_METRICS_ADDRESS.*${address}.*in use.*no other worker`),
        ),
      }),
    );
  });

  it.each(['203.0.113.7:9464', 'no-such-host:9464'])(
    'at %s, which is no address of this machine, are one too',
    (address) => {
      expect(() => installRuntime(logger, address)).toThrow(
        expect.objectContaining({ code: 'config.invalid' }),
      );
    },
  );
});

describe('traces', () => {
  it('are not begun unless they are asked for', async () => {
    expect(await startTracing(readEnvironment({}), () => undefined)).toBeUndefined();
  });

  it('that do not arrive are told once, and hold nobody up', async () => {
    const url = `http://127.0.0.1:${await takenPort()}`;
    const notes: string[] = [];
    const environment = readEnvironment({ OTEL_EXPORTER_OTLP_ENDPOINT: url });
    const tracing = await startTracing(environment, (line) => notes.push(line));
    for (let round = 0; round < 3; round++) {
      const options = { workflowId: 'w', taskQueue: 'q', args: [] } as never;
      const input = { workflowType: 'releaseModel', headers: {}, options };
      await tracing?.client.start?.(input, async () => 'run');
      await tracing?.flush();
    }
    expect(notes).toEqual([expect.stringContaining('OTEL_EXPORTER_OTLP_ENDPOINT')]);
  });
});
