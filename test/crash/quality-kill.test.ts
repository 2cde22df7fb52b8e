/** Workers that are killed while they convert and while they evaluate. */
import { readdirSync, readFileSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type QualitySetup,
  qualityRecipe,
  setUpQuality,
  writeLines,
} from '../harness/quality-setup.ts';
import { releaseInput } from '../harness/release-setup.ts';
import { activityRuns, startRelease } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { WorkerProcess } from '../harness/worker-process.ts';
import { survivors } from '../tools/is-alive.ts';

/** Enough that they are not all answered between two looks. */
const PROMPTS = 1500;
const TIMEOUT_MS = 15 * 60_000;
/** Programs that import torch take most of a minute to start on a busy machine. */
const START_MS = 4 * 60_000;

let server: TestServer;
let setup: QualitySetup;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpQuality(join(server.directory, 'quality'));
});
afterAll(async () => {
  await server.stop();
});

/** What a worker has started: programs inherit its home in their environment. */
function programsOf(worker: WorkerProcess): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== worker.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`WELDLINE_HOME=${setup.home}`);
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function conversions(): Promise<string[]> {
  const store = join(setup.home, 'conversions');
  return (await readdir(store).catch(() => [])).map((name) => join(store, name));
}

/** Answers that are on the disk, of the candidate that is being asked. */
async function journals(): Promise<Map<string, string>> {
  const store = join(setup.home, 'evaluations');
  const found = new Map<string, string>();
  for (const name of await readdir(store).catch(() => [])) {
    const path = join(store, name, 'answers.jsonl');
    const text = await readFile(path, 'utf8').catch(() => '');
    if (text !== '') found.set(path, text);
  }
  return found;
}

/** Whole lines; where a writer begins there is an empty one. */
const linesOf = (text: string): string[] =>
  text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '');

it('goes on after kills without repeating files that are finished or prompts that are answered', {
  timeout: TIMEOUT_MS,
}, async () => {
  const prompts = Array.from({ length: PROMPTS }, (_, index) => ({
    prompt: `Q: ${index % 10}+${Math.floor(index / 10) % 10} = ${index} =`,
    expected: ' [',
  }));
  const data = await writeLines(join(server.directory, 'many.jsonl'), prompts);
  const recipe = qualityRecipe(setup, {
    name: 'killed',
    convert: [{ gguf: { quantization: ['F16', 'Q8_0'] } }],
    evaluate: { suites: [{ id: 'many', data, max_new_tokens: 12 }] },
  });
  let worker = new WorkerProcess(server, setup.variables);
  try {
    await worker.ready();
    const input = releaseInput(recipe, { heartbeatTimeoutMs: 6_000 });
    const release = await startRelease(server.client, input);

    const partial = await waitFor(
      'a conversion that is under way',
      async () => {
        const names = await conversions();
        return names.find((name) => name.endsWith('.partial'));
      },
      START_MS,
    );
    const converting = await waitFor(
      'its program',
      async () => {
        const pids = programsOf(worker);
        return pids.length > 0 ? pids : undefined;
      },
      START_MS,
    );
    await worker.kill();
    expect(await survivors(converting)).toEqual([]);
    expect((await conversions()).filter((name) => !name.endsWith('.partial'))).toEqual([]);

    worker = await new WorkerProcess(server, setup.variables).ready();
    const [journal, answered] = await waitFor(
      'answers',
      async () => {
        const found = [...(await journals())];
        return found.find(([, text]) => {
          const count = linesOf(text).length;
          return count > 20 && count < PROMPTS / 2;
        });
      },
      START_MS,
    );
    const evaluating = programsOf(worker);
    await worker.kill();
    expect(await survivors(evaluating)).toEqual([]);
    const kept = (await journals()).get(journal) ?? '';
    expect(kept.startsWith(answered)).toBe(true);
    const finished = (await conversions()).filter((name) => !name.endsWith('.partial'));
    const before = await Promise.all(finished.map((name) => stat(join(name, 'conversion.json'))));

    worker = await new WorkerProcess(server, setup.variables).ready();
    const grown = await waitFor(
      'more answers',
      async () => {
        const text = (await journals()).get(journal) ?? '';
        return linesOf(text).length > linesOf(kept).length + 1 ? text : undefined;
      },
      START_MS,
    );
    // What was whole in the file stays as it was, and nothing in it is asked for again.
    expect(grown.startsWith(kept.slice(0, kept.lastIndexOf('\n') + 1))).toBe(true);
    const indexes = linesOf(grown).map((line) => (JSON.parse(line) as { index: number }).index);
    expect(new Set(indexes).size).toBe(indexes.length);

    const result = await release.result();
    expect(result.publications).toHaveLength(3);
    const after = await Promise.all(finished.map((name) => stat(join(name, 'conversion.json'))));
    expect(after.map(({ ino, mtimeMs }) => [ino, mtimeMs])).toEqual(
      before.map(({ ino, mtimeMs }) => [ino, mtimeMs]),
    );
    expect(await conversions()).not.toContain(partial);
    const attempts = (await activityRuns(release)).map((run) => run.attempts);
    expect(Math.max(...attempts)).toBeGreaterThan(1);
  } finally {
    await worker.kill();
  }
});
