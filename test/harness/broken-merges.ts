/** Merges that are wrong on purpose, of real models, to be found by the gate. */
import { cp, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mergeDirectories } from '../doubles/merge-directories.ts';

export interface Inputs {
  readonly base: string;
  readonly adapter: string;
  /** An adapter of another task. */
  readonly otherAdapter: string;
  /** Layer that is left out. */
  readonly layer: number;
}

/** Writes a right merge and three wrong ones below `directory`. @returns their directories */
export async function makeMerges(
  { base, adapter, otherAdapter, layer }: Inputs,
  directory: string,
): Promise<Readonly<Record<'right' | 'twice' | 'skipped' | 'other', string>>> {
  const merge = async (name: string, which: string): Promise<string> => {
    const output = join(directory, name);
    await mergeDirectories({ base, adapter: which, output });
    return output;
  };
  const doubled = join(directory, 'doubled-adapter');
  await cp(adapter, doubled, { recursive: true });
  const path = join(doubled, 'adapter_config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as { lora_alpha: number };
  await writeFile(path, JSON.stringify({ ...config, lora_alpha: 2 * config.lora_alpha }));
  const skipped = await merge('skipped', adapter);
  await restoreLayer(skipped, base, layer);
  return {
    right: await merge('right', adapter),
    twice: await merge('twice', doubled),
    skipped,
    other: await merge('other', otherAdapter),
  };
}

/** Puts the weights of the base back into one layer, as if nothing had been added to it. */
async function restoreLayer(merged: string, base: string, layer: number): Promise<void> {
  const file = 'model.safetensors';
  const [from, to] = [join(base, file), join(merged, file)];
  const source = await readFile(from);
  const places = tensorsOf(source);
  const target = await readFile(to);
  const handle = await open(to, 'r+');
  try {
    let restored = 0;
    for (const [name, [begin, end]] of tensorsOf(target)) {
      const place = places.get(name);
      if (!name.startsWith(`model.layers.${layer}.`) || place === undefined) continue;
      await handle.write(source, place[0], end - begin, begin);
      restored++;
    }
    if (restored === 0) throw new Error(`${merged} has no layer ${layer}`);
  } finally {
    await handle.close();
  }
}

/** Byte ranges of all tensors in a safetensors file. */
function tensorsOf(file: Buffer): Map<string, readonly [begin: number, end: number]> {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString('utf8')) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            data_offsets: [begin, end],
          },
        ]) => [name, [8 + length + begin, 8 + length + end] as const],
      ),
  );
}
