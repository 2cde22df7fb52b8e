/** Some rounds of the soak (`npm run soak`): whole releases that are cut off and gone on with. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { digestFile } from '../../engine/durable-files.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { type Bytes, publishedBytes } from '../soak/check-round.ts';
import { drawRound, type FaultKind, roundRandom } from '../soak/draw-round.ts';
import { runRound } from '../soak/run-round.ts';
import { type SoakWorld, startSoakWorld } from '../soak/soak-world.ts';

const SEED = 1;
/** A fleet that loses command, server and a worker; a command that works alone and is killed. */
const ROUNDS = [16, 21];
/** Those that no round must wait for. */
const KINDS: readonly FaultKind[] = ['kill-command', 'kill-worker', 'kill-server', 'terminate'];
const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

let directory: string;
let world: SoakWorld;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-faults-'));
  world = await startSoakWorld(directory, [process.execPath, MAIN]);
});
afterAll(async () => {
  await world?.close();
  await rm(directory, { recursive: true, force: true });
});

/** The shards of an undisturbed merge, by the names that they have when published. */
async function shards(artefact: string): Promise<Bytes> {
  const model = (part: string): string => join(directory, `hub/org/heavy-${part}/main`);
  const output = join(directory, 'expected');
  await mergeDirectories({ base: model('base'), adapter: model('adapter'), output });
  const bytes = new Map<string, string>();
  for (const number of [1, 2, 3, 4]) {
    const name = `model-0000${number}-of-00004.safetensors`;
    bytes.set(`${artefact}/${name}`, (await digestFile(join(output, name))).sha256);
  }
  return bytes;
}

it(`rounds ${ROUNDS.join(' and ')} of seed ${SEED} end with the same release, all of it right`, async () => {
  const drawn = ROUNDS.map((round) => drawRound(roundRandom(SEED, round), KINDS, ['merge']));
  expect(drawn.map(({ mode }) => mode).sort()).toEqual(['alone', 'fleet']);
  const published: Bytes[] = [];
  // Side by side, since most of a round is waiting for what is dead to be missed.
  const outcomes = await Promise.all(
    drawn.map((each, index) =>
      runRound({
        ...{ world, name: `round-${ROUNDS[index]}`, drawn: each, expected: undefined },
        onPublished: async (place) => void published.push(await publishedBytes(place)),
      }),
    ),
  );
  for (const { problems } of outcomes) expect(problems).toEqual([]);
  const struck = outcomes.flatMap(({ faults }) => faults).filter(({ victim }) => victim);
  console.log(struck.map(({ kind, point }) => `${kind} at ${point}`).join(', '));
  expect(struck.length).toBeGreaterThanOrEqual(2);
  const [one, other] = published;
  expect(one).toEqual(other);
  const [artefact = ''] = [...(one?.keys() ?? [])][0]?.split('/') ?? [];
  for (const [name, digest] of await shards(artefact)) expect(one?.get(name), name).toBe(digest);
}, 300_000);
