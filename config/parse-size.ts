import { WeldlineError } from '../engine/errors.ts';

/**
 * Decimal units as Hugging Face writes them, binary units with an `i`. Case matters: `Gb` and `gb`
 * mean bits to some tools and bytes to others.
 */
const UNIT_BYTES: ReadonlyMap<string, bigint> = new Map([
  ['', 1n],
  ['B', 1n],
  ['kB', 1_000n],
  ['KB', 1_000n],
  ['MB', 1_000_000n],
  ['GB', 1_000_000_000n],
  ['TB', 1_000_000_000_000n],
  ['KiB', 1n << 10n],
  ['MiB', 1n << 20n],
  ['GiB', 1n << 30n],
  ['TiB', 1n << 40n],
]);

export const SIZE_EXPECTATION = 'a size such as 5GB, 500MB, 512MiB or a whole number of bytes';

/**
 * A size as people write it, in bytes: `5GB` (decimal), `512MiB` (binary), `1.5GB`, `5000000000` or
 * the number itself.
 *
 * @returns a positive safe integer
 * @throws WeldlineError `config.invalid` when it is not a size, is zero, is not a whole number of
 *   bytes, or is too large for a safe integer
 */
export function parseSize(size: string | number): number {
  const bytes = typeof size === 'number' ? size : bytesOf(size);
  if (bytes === undefined) {
    throw new WeldlineError(
      'config.invalid',
      `"${String(size).slice(0, 40)}" is not a size: expected ${SIZE_EXPECTATION}.`,
    );
  }
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new WeldlineError(
      'config.invalid',
      `A size must be a whole number of bytes between 1 and 9007199254740991; got "${size}".`,
    );
  }
  return bytes;
}

function bytesOf(text: string): number | undefined {
  const match = /^(\d{1,20})(?:\.(\d{1,15}))? ?([A-Za-z]*)$/.exec(text.trim());
  const unitBytes = UNIT_BYTES.get(match?.[3] ?? '');
  if (match === null || unitBytes === undefined) return undefined;
  const fraction = match[2] ?? '';
  // Integer arithmetic throughout: 1.1GB is 1100000000 bytes, not 1100000000.0000002.
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(match[1] + fraction) * unitBytes;
  return scaled % scale === 0n ? Number(scaled / scale) : Number.NaN;
}
