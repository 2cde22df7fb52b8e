import { describe, expect, it } from 'vitest';
import { WeldlineError } from '../../engine/errors.ts';
import { retryAfterMs, withRetries, withStallTimer } from '../../sources/hub-retry.ts';

const NOW_MS = Date.parse('2026-01-01T00:00:00Z');
const PATIENCE = {
  attemptsMax: 3,
  delayMs: 1,
  delayMsMax: 2,
  retryAfterMsMax: 50,
  stallTimeoutMs: 50,
};

describe('retryAfterMs', () => {
  it.each([
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Wed, 31 Dec 2025 00:00:00 GMT' }, 0],
    [{ ratelimit: '"resolvers";r=0;t=55' }, 55_000],
    [{ 'retry-after': '3', ratelimit: '"api";r=0;t=55' }, 3_000],
    [{ 'retry-after': 'soon' }, undefined],
    [{}, undefined],
  ])('reads %j', (headers, expected) => {
    expect(retryAfterMs(new Headers(headers as Record<string, string>), NOW_MS)).toBe(expected);
  });
});

describe('withRetries', () => {
  const passing = new WeldlineError('hub.unavailable', 'busy');

  it('tries a bounded number of times', async () => {
    let tries = 0;
    const run = withRetries({ patience: PATIENCE }, async () => {
      tries += 1;
      throw passing;
    });
    await expect(run).rejects.toBe(passing);
    expect(tries).toBe(3);
  });

  it('goes on while there is progress, and not on crumbs', async () => {
    for (const [step, expected] of [
      [2 * 1024 * 1024, 10],
      [100, 3],
    ] as const) {
      let moved = 0;
      let tries = 0;
      const run = withRetries({ patience: PATIENCE, bytesMoved: () => moved }, async () => {
        tries += 1;
        moved += step;
        if (tries < 10) throw passing;
      });
      await run.catch(() => undefined);
      expect(tries).toBe(expected);
    }
  });

  it.each(['hub.not-found', 'hub.gated', 'disk.full'] as const)(
    'does not repeat %s',
    async (code) => {
      let tries = 0;
      const run = withRetries({ patience: PATIENCE }, async () => {
        tries += 1;
        throw new WeldlineError(code, 'no');
      });
      await expect(run).rejects.toMatchObject({ code });
      expect(tries).toBe(1);
    },
  );

  it('does not wait longer than it is ready to', async () => {
    const limited = new WeldlineError('hub.rate-limited', 'no', { details: { retryAfterMs: 51 } });
    let tries = 0;
    const run = withRetries({ patience: PATIENCE }, async () => {
      tries += 1;
      throw limited;
    });
    await expect(run).rejects.toBe(limited);
    expect(tries).toBe(1);
  });
});

describe('withStallTimer', () => {
  it('lets slow work live as long as something moves', async () => {
    const result = await withStallTimer({ timeoutMs: 60, name: 'x' }, async (signal, alive) => {
      for (let step = 0; step < 8; step += 1) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        signal.throwIfAborted();
        alive();
      }
      return 'done';
    });
    expect(result).toBe('done');
  });

  it('leaves no listener on the signal of its caller', async () => {
    const { signal } = new AbortController();
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...call: Parameters<typeof add>) => {
      listeners += 1;
      add(...call);
    };
    signal.removeEventListener = (...call: Parameters<typeof remove>) => {
      listeners -= 1;
      remove(...call);
    };
    await withStallTimer({ timeoutMs: 50, name: 'x', signal }, async () => undefined);
    expect(listeners).toBe(0);
  });
});
