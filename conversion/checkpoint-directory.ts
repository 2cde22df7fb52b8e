import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { toReadError } from '../engine/disk-errors.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';

/**
 * The files of a checkpoint of weldline's own making, which lie side by side.
 * @throws WeldlineError `source.not-found`, `disk.read-failed`
 */
export async function openCheckpointDirectory(directory: string): Promise<ModelFiles> {
  const sizes = new Map<string, number>();
  try {
    for (const name of await readdir(directory)) {
      const stats = await stat(join(directory, name));
      if (stats.isFile()) sizes.set(name, stats.size);
    }
  } catch (error) {
    throw toReadError(error, directory);
  }
  return {
    name: directory,
    sizes,
    async open(path) {
      const file = join(directory, path);
      const handle = await open(file, 'r').catch((error: unknown) => {
        throw toReadError(error, file);
      });
      return {
        name: file,
        size: sizes.get(path) ?? 0,
        async read(offset, length, room = new Uint8Array(length)) {
          const { bytesRead } = await handle.read(room, 0, length, offset);
          if (bytesRead === length) return room.subarray(0, length);
          throw new WeldlineError(
            'source.out-of-range',
            `${file} ends at byte ${offset + bytesRead}, before what is read of it does.`,
          );
        },
        close: () => handle.close(),
      };
    },
  };
}
