import { sha256Of } from '../../canonical-json.ts';

/** Two words that name a sequence of random numbers. */
export type RandomKey = readonly [number, number];

/** Of one delta: the choice depends on nothing else, and not on the order in which it is made. */
export function randomKeyOf(seed: number, adapter: string, tensor: string): RandomKey {
  const digest = sha256Of(JSON.stringify([seed, adapter, tensor]));
  return [Number.parseInt(digest.slice(0, 8), 16), Number.parseInt(digest.slice(8, 16), 16)];
}

const PARITY = 0x1bd1_1bda;

/**
 * Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
 * two random words for each counter, without a state that one would have to run through.
 */
export function threefry(key: RandomKey, low: number, high: number, words: Uint32Array): void {
  // The three words of the key take turns; kept in variables, because this is all that DARE costs.
  let k0 = key[0] | 0;
  let k1 = key[1] | 0;
  let k2 = PARITY ^ k0 ^ k1;
  let a = (low + k0) | 0;
  let b = (high + k1) | 0;
  for (let group = 1; group <= 5; group++) {
    const isOdd = (group & 1) === 1;
    a = (a + b) | 0;
    b = a ^ (isOdd ? (b << 13) | (b >>> 19) : (b << 17) | (b >>> 15));
    a = (a + b) | 0;
    b = a ^ (isOdd ? (b << 15) | (b >>> 17) : (b << 29) | (b >>> 3));
    a = (a + b) | 0;
    b = a ^ (isOdd ? (b << 26) | (b >>> 6) : (b << 16) | (b >>> 16));
    a = (a + b) | 0;
    b = a ^ (isOdd ? (b << 6) | (b >>> 26) : (b << 24) | (b >>> 8));
    const first = k0;
    k0 = k1;
    k1 = k2;
    k2 = first;
    a = (a + k0) | 0;
    b = (b + k1 + group) | 0;
  }
  words[0] = a;
  words[1] = b;
}

/**
 * Whether an element stays: if its random word is below `density` · 2³². Element `index` of the
 * flattened delta has word `index % 2` of counter `index / 2`, rounded down.
 */
export function isChosen(index: number, key: RandomKey, density: number): boolean {
  const counter = Math.floor(index / 2);
  const words = new Uint32Array(2);
  threefry(key, counter | 0, Math.floor(counter / 2 ** 32), words);
  return words[index % 2]! < density * 2 ** 32;
}

/**
 * Sets the values to zero that do not stay.
 *
 * @param begin index of the first one in the flattened delta
 */
export function dropAtRandom(
  values: Float32Array,
  begin: number,
  key: RandomKey,
  density: number,
): void {
  const limit = density * 2 ** 32;
  const words = new Uint32Array(2);
  const end = begin + values.length;
  for (let index = begin - (begin % 2); index < end; index += 2) {
    const counter = index / 2;
    threefry(key, counter | 0, Math.floor(counter / 2 ** 32), words);
    if (words[0]! >= limit && index >= begin) values[index - begin] = 0;
    if (words[1]! >= limit && index + 1 < end) values[index + 1 - begin] = 0;
  }
}
