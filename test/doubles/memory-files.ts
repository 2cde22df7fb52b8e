import { createHash } from 'node:crypto';
import type { ByteSource } from '../../engine/byte-source.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { MergeInput } from '../../engine/plan/plan-merge.ts';

export interface RecordedRead {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

/**
 * A model's files in memory that keeps a record of what is read, and can forbid reads.
 *
 * @param mayRead a read for which it returns false fails, as a read of weights must where only
 *   headers are wanted
 */
export function memoryFiles(
  name: string,
  contents: ReadonlyMap<string, Uint8Array>,
  mayRead: (read: RecordedRead) => boolean = () => true,
): MergeInput & { readonly reads: RecordedRead[]; readonly openCount: () => number } {
  const reads: RecordedRead[] = [];
  let open = 0;
  const files = {
    name,
    sizes: new Map([...contents].map(([path, bytes]) => [path, bytes.length])),
    open: async (path: string): Promise<ByteSource> => {
      const bytes = contents.get(path);
      if (bytes === undefined)
        throw new WeldlineError('source.not-found', `${name} has no ${path}`);
      open++;
      let closed = false;
      return {
        name: `${name}/${path}`,
        size: bytes.length,
        async read(offset, length) {
          const read = { path, offset, length };
          reads.push(read);
          if (closed) throw new Error(`${path} is read after it was closed`);
          if (offset + length > bytes.length) throw new Error(`${path} is read past its end`);
          if (!mayRead(read)) throw new Error(`forbidden read of ${JSON.stringify(read)}`);
          return bytes.slice(offset, offset + length);
        },
        async close() {
          if (!closed) open--;
          closed = true;
        },
      };
    },
  };
  const digest = async (path: string): Promise<string> =>
    createHash('sha256')
      .update(contents.get(path) ?? '')
      .digest('hex');
  return { files, digest, reads, openCount: () => open };
}
