import { describe, expect, it } from 'vitest';
import type { Artefact } from '../../publishers/publisher.ts';
import { type FaultyProxy, MUTATING, type ProxyFault } from '../harness/faulty-proxy.ts';
import { RELEASE, type Stage, signal } from './publisher-stage.ts';

/** Each hits every request that changes something, one publication for each. */
const FAULTS_OF_ONE_REQUEST: readonly ProxyFault[] = [
  { kind: 'drop-request' },
  { kind: 'drop-request', afterBytes: 'half' },
  { kind: 'drop-answer' },
  { kind: 'status', status: 503 },
  { kind: 'status-after', status: 500 },
  { kind: 'status', status: 409 },
];
/** Digests, ids of uploads and what follows them. */
const VARIABLE = /[0-9a-f]{8}-[0-9a-f-]{27}.*|[0-9a-f]{32,}/g;
/** Of a stalled connection it takes the stall timeout to find out, so few are. */
const STALLS_MAX = 3;

/** Servers and networks that fail in the middle. */
export function testFaults(stage: Stage): void {
  describe('with a server that fails', () => {
    const proxy = (): FaultyProxy => stage.under.proxy!;
    let releases = 0;

    async function freshArtefact(): Promise<Artefact> {
      return stage.artefact(stage.id(`${RELEASE}-f${releases++}`));
    }

    /**
     * The requests of a publication that change something, by their number: the first of those that
     * differ in names and digests only.
     */
    async function findChanges(): Promise<readonly number[]> {
      // What artefacts have in common goes up with the first.
      await stage.publish(await freshArtefact());
      proxy().clear();
      await stage.publish(await freshArtefact());
      const changes = proxy().requests.filter(({ method }) => MUTATING.test(method));
      const kinds = changes.map(({ method, path }) => `${method} ${path.replace(VARIABLE, '*')}`);
      return kinds.flatMap((kind, index) => (kinds.indexOf(kind) === index ? [index] : []));
    }

    /** Published, or an error and nothing to be seen; and then it can be published. */
    async function expectPublishable(fault: ProxyFault): Promise<void> {
      const artefact = await freshArtefact();
      proxy().clear();
      proxy().fail(fault);
      const outcome = await settle(stage.publish(artefact));
      const hit = proxy().requests.filter((seen) => seen.fault !== undefined);
      proxy().clear();
      const what = `${fault.kind} of ${hit.map(({ method, path }) => `${method} ${path}`)}`;
      if (outcome instanceof Error) {
        await stage.errorOf(Promise.reject(outcome));
        expect(outcome, what).not.toMatchObject({ code: 'publish.conflict' });
        await stage.expectInvisible(artefact);
        await stage.publish(artefact);
      }
      await stage.expectPublished(artefact);
    }

    for (const fault of FAULTS_OF_ONE_REQUEST) {
      const { kind, status = '', afterBytes } = fault;
      const title = `${kind} ${status}${afterBytes === undefined ? '' : 'in the middle'}`.trim();
      it(`publishes all or shows nothing: ${title}, at each change`, async () => {
        const changes = await findChanges();
        expect(changes.length).toBeGreaterThan(0);
        const step = Math.ceil(changes.length / (stage.traits.changesHit ?? changes.length));
        // From the last one on, which commits.
        for (const skip of changes.toReversed().filter((_, index) => index % step === 0)) {
          await expectPublishable({ ...fault, method: MUTATING, skip });
        }
      });
    }

    it('publishes all or shows nothing: reads that fail', async () => {
      for (const kind of ['drop-answer', 'status'] as const) {
        for (const skip of [0, 1, 2]) await expectPublishable({ kind, method: /GET|HEAD/, skip });
      }
    });

    it('gives up a request on which nothing moves, and waits for one that is slow', async () => {
      const changes = await findChanges();
      const step = Math.max(1, Math.ceil(changes.length / STALLS_MAX));
      for (const skip of changes.filter((_, index) => index % step === 0)) {
        await expectPublishable({ kind: 'stall', method: MUTATING, skip });
      }
      const artefact = await freshArtefact();
      proxy().clear();
      proxy().fail({ kind: 'slow', delayMs: 300, times: 2 });
      const { existed } = await stage.publish(artefact);
      expect(existed).toBe(false);
      await stage.expectPublished(artefact);
    });

    it('publishes all or shows nothing: every second answer to a change is lost', async () => {
      const artefact = await freshArtefact();
      proxy().clear();
      // Each counts the requests that none before it has hit.
      for (let skip = 1; skip <= 40; skip++) {
        proxy().fail({ kind: 'drop-answer', method: MUTATING, skip });
      }
      const outcome = await settle(stage.publish(artefact));
      proxy().clear();
      if (outcome instanceof Error) {
        await stage.errorOf(Promise.reject(outcome));
        await stage.expectInvisible(artefact);
        await stage.publish(artefact);
      }
      await stage.expectPublished(artefact);
    });

    const permanent: [number, string][] = [
      [401, 'publish.unauthorized'],
      [403, 'publish.unauthorized'],
      [503, 'publish.unavailable'],
    ];
    for (const [status, code] of permanent) {
      for (const method of [/^/, MUTATING]) {
        const which = method === MUTATING ? 'changes' : 'everything';
        it(`says that ${which} is answered with ${status}`, async () => {
          const artefact = await freshArtefact();
          proxy().clear();
          proxy().fail({ kind: 'status', status, method, times: Infinity });
          const error = await stage.errorOf(stage.publish(artefact));
          const answered = proxy().requests.filter((seen) => seen.status === status);
          proxy().clear();
          expect(error.code, error.message).toBe(code);
          // Asking again does not make it any better.
          const asked = answered.map((seen) => `${seen.method} ${seen.path}`);
          if (status < 500) expect(new Set(asked).size).toBe(asked.length);
          await stage.expectInvisible(artefact);
          await stage.publish(artefact);
          await stage.expectPublished(artefact);
        });
      }
    }

    it('says that a release cannot be checked, before it begins', async () => {
      for (const [status, code] of permanent) {
        proxy().clear();
        proxy().fail({ kind: 'status', status, times: Infinity });
        const checked = stage.publisher.check(stage.id(), undefined, signal());
        const error = await stage.errorOf(checked);
        expect(error.code).toBe(code);
      }
    });

    it('waits as long as it is told, and no longer than it makes sense', async () => {
      const artefact = await freshArtefact();
      proxy().clear();
      const busy = { kind: 'status', status: 429, method: MUTATING } as const;
      proxy().fail({ ...busy, headers: { 'Retry-After': '1' } });
      await stage.publish(artefact);
      await stage.expectPublished(artefact);
      const { requests } = proxy();
      const refused = requests.find((seen) => seen.status === 429)!;
      const next = requests.find((seen) => isSame(seen, refused) && seen.at > refused.at);
      expect((next?.at ?? 0) - refused.at).toBeGreaterThan(950);

      proxy().clear();
      proxy().fail({ ...busy, headers: { 'Retry-After': '3600' }, times: Infinity });
      const other = await freshArtefact();
      const startedAt = performance.now();
      const error = await stage.errorOf(stage.publish(other));
      expect(error.code).toBe('publish.rate-limited');
      expect(performance.now() - startedAt).toBeLessThan(10_000);
      proxy().clear();
      await stage.expectInvisible(other);
    });

    it('leaves an alias where it was or where it shall be', async () => {
      const [first, second] = [await freshArtefact(), await freshArtefact()];
      await stage.publish(first);
      await stage.publish(second);
      const { part } = stage.id();
      let from = { release: first.release, history: [] as readonly string[] };
      const begin = { alias: 'latest', part, to: first.release, from: undefined, history: [] };
      await stage.publisher.moveAlias(begin, signal());
      for (const kind of ['drop-answer', 'status-after', 'drop-request', 'status'] as const) {
        for (const skip of [0, 1]) {
          const to = from.release === first.release ? second.release : first.release;
          const wanted = { release: to, history: [from.release] };
          proxy().clear();
          proxy().fail({ kind, method: MUTATING, skip });
          const move = { alias: 'latest', part, to, from, history: wanted.history };
          const outcome = await settle(stage.publisher.moveAlias(move, signal()));
          proxy().clear();
          const now = await stage.publisher.readAlias('latest', part, signal());
          if (outcome instanceof Error) await stage.errorOf(Promise.reject(outcome));
          expect(outcome instanceof Error ? [from, wanted] : [wanted], kind).toContainEqual(now);
          from = now!;
        }
      }
    });
  });
}

async function settle<T>(attempt: Promise<T>): Promise<T | Error> {
  return attempt.catch((error: Error) => error);
}

function isSame(one: { method: string; path: string }, other: typeof one): boolean {
  return one.method === other.method && one.path === other.path;
}
