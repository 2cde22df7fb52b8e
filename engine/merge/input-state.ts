import type { BigIntStats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { digestOf } from '../canonical-json.ts';
import { toReadError } from '../disk-errors.ts';
import { WeldlineError } from '../errors.ts';
import type { Plan, PlannedShard } from '../plan/plan.ts';
import { type StreamedInputs, streamedInput } from './streamed-input.ts';
import { referencesOf } from './tensor-work.ts';

/**
 * A short name for the state that a shard's input files are in, from what the file system says of
 * them: it changes when one is written to or replaced. Of a streamed file its pin says that. No
 * weight is read for it.
 *
 * Bytes are only trusted together with this name. A file that changes while it is merged would
 * otherwise leave wrong bytes with right checksums in the journal, found again once it is restored.
 *
 * @throws WeldlineError `merge.input-changed` if a file has not the size that was planned
 */
export async function readInputState(
  plan: Plan,
  shard: PlannedShard,
  roots: Readonly<Record<string, string>>,
  streamed: StreamedInputs = {},
): Promise<string> {
  const references = shard.tensors.flatMap(referencesOf);
  const used = new Set(references.map(({ input, file }) => join(input, file)));
  const states: string[] = [];
  for (const { id, files } of plan.inputs) {
    for (const { path, size } of files.filter((file) => used.has(join(id, file.path)))) {
      const remote = streamedInput(streamed, id, path);
      if (remote !== undefined) {
        checkSize(`${remote.files.name}/${path}`, remote.files.sizes.get(path) ?? 0, size);
        states.push([id, path, remote.pin].join('|'));
        continue;
      }
      const place = join(roots[id] ?? '', path);
      const found = await statExactly(place);
      checkSize(place, Number(found.size), size);
      states.push([id, path, found.ino, found.size, found.mtimeNs, found.ctimeNs].join('|'));
    }
  }
  return digestOf(states).slice(0, 16);
}

function checkSize(place: string, found: number, planned: number): void {
  if (found === planned) return;
  throw new WeldlineError(
    'merge.input-changed',
    `${place} has ${found} bytes and had ${planned} when the merge was planned. Restore it, or run ` +
      'again to plan with the new file.',
  );
}

async function statExactly(path: string): Promise<BigIntStats> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    throw toReadError(error, path);
  }
}
