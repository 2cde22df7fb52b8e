import type { ByteSource } from './byte-source.ts';

/** Pieces on their way while one is looked at: enough for a network's latency. */
const PIECES_AHEAD = 3;

/**
 * Reads a source from its beginning to its end, ahead of who looks at it.
 *
 * @param pieceBytes of each piece but the last
 * @yields each piece; its memory is used again once the next one is asked for
 */
export async function* readAhead(
  source: ByteSource,
  pieceBytes: number,
  signal?: AbortSignal,
): AsyncGenerator<{ readonly bytes: Uint8Array; readonly offset: number }> {
  const { size } = source;
  const count = Math.ceil(size / pieceBytes);
  const rooms = Array.from(
    { length: Math.min(count, PIECES_AHEAD + 1) },
    () => new Uint8Array(Math.min(pieceBytes, size)),
  );
  const pieces: Promise<Uint8Array>[] = [];
  const begin = (index: number): void => {
    if (index >= count) return;
    const offset = index * pieceBytes;
    const length = Math.min(pieceBytes, size - offset);
    const piece = source.read(offset, length, rooms[index % rooms.length]);
    // Thrown where it is waited for, which may be never.
    piece.catch(() => undefined);
    pieces.push(piece);
  };
  for (let index = 0; index < rooms.length; index++) begin(index);
  for (let index = 0; index < count; index++) {
    signal?.throwIfAborted();
    const bytes = await (pieces.shift() as Promise<Uint8Array>);
    yield { bytes, offset: index * pieceBytes };
    begin(index + rooms.length);
  }
}
