import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { ByteSource } from '../../engine/byte-source.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

export interface OpenedSource {
  readonly source: ByteSource;
  readonly cleanUp?: () => Promise<void>;
}

const SIZE = 300_000;

/**
 * What every implementation of `ByteSource` must do.
 * @param open opens a source over exactly these bytes
 */
export function testByteSource(
  name: string,
  open: (content: Buffer) => Promise<OpenedSource>,
): void {
  describe(`${name} as a ByteSource`, () => {
    const opened: OpenedSource[] = [];
    const openSource = async (content: Buffer) => {
      const result = await open(content);
      opened.push(result);
      return result.source;
    };
    afterEach(async () => {
      for (const { source, cleanUp } of opened.splice(0)) {
        await source.close();
        await cleanUp?.();
      }
    });

    it('knows its name and size', async () => {
      const source = await openSource(testBytes(SIZE));
      expect(source.size).toBe(SIZE);
      expect(source.name).not.toBe('');
    });

    it('reads exactly the bytes of any range, in any order, again and again', async () => {
      const content = testBytes(SIZE);
      const source = await openSource(content);
      const ranges = fc
        .tuple(fc.nat(SIZE), fc.nat(SIZE))
        .map(([a, b]) => [Math.min(a, b), Math.abs(a - b)] as const);
      await fc.assert(
        fc.asyncProperty(ranges, async ([offset, length]) => {
          const bytes = await source.read(offset, length);
          expect(bytes.byteLength).toBe(length);
          expect(Buffer.compare(bytes, content.subarray(offset, offset + length))).toBe(0);
        }),
        { numRuns: 25 },
      );
    });

    it('reads many ranges at once', async () => {
      const content = testBytes(SIZE, 1);
      const source = await openSource(content);
      const parts = await Promise.all(
        Array.from({ length: 30 }, (_, index) => source.read(index * 10_000, 10_000)),
      );
      expect(Buffer.compare(Buffer.concat(parts), content)).toBe(0);
    });

    it('gives bytes that the caller may change', async () => {
      const source = await openSource(testBytes(1000));
      (await source.read(0, 1000)).fill(0);
      expect(Buffer.compare(await source.read(0, 1000), testBytes(1000))).toBe(0);
    });

    it('gives the same bytes where it is given room for them', async () => {
      const content = testBytes(1000);
      const source = await openSource(content);
      const room = new Uint8Array(600);
      for (const [offset, length] of [
        [0, 600],
        [999, 1],
        [3, 0],
      ] as const) {
        const bytes = await source.read(offset, length, room);
        expect(Buffer.compare(bytes, content.subarray(offset, offset + length))).toBe(0);
      }
    });

    it('is empty for an empty file', async () => {
      const source = await openSource(Buffer.alloc(0));
      expect(source.size).toBe(0);
      expect(await source.read(0, 0)).toHaveLength(0);
    });

    it.each([
      [SIZE, 1],
      [0, SIZE + 1],
      [SIZE - 1, 2],
      [-1, 1],
      [SIZE + 1, 0],
    ])('refuses the range at %i of %i bytes', async (offset, length) => {
      const source = await openSource(testBytes(SIZE));
      await expect(source.read(offset, length)).rejects.toMatchObject({
        code: 'source.out-of-range',
      });
    });

    it('may be closed twice and not read afterwards', async () => {
      const source = await openSource(testBytes(1000));
      await source.close();
      await source.close();
      await expect(source.read(0, 1)).rejects.toMatchObject({ code: 'internal.bug' });
    });
  });
}
