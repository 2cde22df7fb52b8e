import { Random } from '../../doubles/random.ts';
import { concatenate, frame, headerMembers } from '../../doubles/write-safetensors.ts';

/** Pieces that have meaning somewhere in a header, or nearly. */
const TOKENS = [
  '"__metadata__":{"format":"pt"}',
  '"__metadata__":null',
  '"__metadata__":{"a":1}',
  '"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',
  '"t0":{"dtype":"U8","shape":[],"data_offsets":[0,1]}',
  '"dtype":"BF16"',
  '"shape":[0]',
  '"data_offsets":[0,0]',
  '"BF16"',
  '"F4"',
  '"F6_E2M3"',
  '"F8_E8M0"',
  '"f32"',
  '[]',
  '[0]',
  '[[[[1]]]]',
  '{}',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  '\\"',
  '\\u0000',
  '\\ud800',
  '\\u00e9',
  'é',
  '\xff',
  ' ',
  '\n',
  '\0',
  'null',
  'true',
  '0',
  '-0',
  '-1',
  '1.0',
  '1e0',
  '1E400',
  '00',
  '4294967296',
  '9007199254740991',
  '9007199254740993',
  '18446744073709551615',
  '18446744073709551616',
] as const;

const SIZE_BY_DTYPE = { U8: 1, BOOL: 1, F8_E4M3: 1, BF16: 2, F16: 2, F32: 4, I64: 8 } as const;

function soundFile(random: Random): { header: string; data: Uint8Array } {
  const tensors = Array.from({ length: random.below(4) }, (_, index) => {
    const dtype = random.pick(Object.keys(SIZE_BY_DTYPE) as (keyof typeof SIZE_BY_DTYPE)[]);
    const shape = Array.from({ length: random.below(4) }, () => random.below(4));
    const count = shape.reduce((product, extent) => product * extent, 1);
    const data = Uint8Array.from({ length: count * SIZE_BY_DTYPE[dtype] }, () => random.below(256));
    return { name: `t${index}`, dtype, shape, data };
  });
  const members = headerMembers(tensors);
  if (random.below(2) === 0) members.unshift('"__metadata__":{"format":"pt"}');
  const padding = ' '.repeat(random.below(8));
  return {
    header: `{${members.join(',')}}${padding}`,
    data: concatenate(...tensors.map((t) => t.data)),
  };
}

function mutate(text: string, random: Random): string {
  const at = random.below(text.length + 1);
  const end = at + random.below(12);
  switch (random.below(8)) {
    case 0:
      return text.slice(0, at) + random.pick(TOKENS) + text.slice(at);
    case 1:
      return text.slice(0, at) + random.pick(TOKENS) + text.slice(end);
    case 2:
      return text.slice(0, at) + text.slice(end);
    case 3:
      return text.slice(0, end) + text.slice(at);
    case 4:
      return text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1);
    case 5:
      // Another number in place of one.
      return replaceOne(text, /\d+/g, random, () => String(random.below(20)));
    case 6:
      return replaceOne(text, /"[A-Z0-9_]+"/g, random, () =>
        random.pick(['"F4"', '"U16"', '"C64"', '"I4"']),
      );
    default:
      return replaceOne(text, /t\d/g, random, () =>
        random.pick(['t0', 't1', '', 'constructor', 'ü']),
      );
  }
}

function replaceOne(text: string, pattern: RegExp, random: Random, other: () => string): string {
  const matches = [...text.matchAll(pattern)];
  if (matches.length === 0) return text;
  const match = random.pick(matches);
  return text.slice(0, match.index) + other() + text.slice(match.index + match[0].length);
}

/** Latin-1, so that every byte can occur, but for characters that have no place there. */
function encode(text: string): Uint8Array {
  return text.includes('é') || text.includes('ü')
    ? new TextEncoder().encode(text)
    : Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * Safetensors files, from sound to hopeless: sound ones with none to four changes of their header,
 * and some with random bytes, another length before the header, or other data behind it. The same
 * seed gives the same files.
 */
export function* mutatedFiles(seed: number, count: number): Generator<Uint8Array> {
  const random = new Random(seed);
  for (let index = 0; index < count; index++) {
    const { header, data } = soundFile(random);
    let text = header;
    for (let left = random.below(5); left > 0; left--) text = mutate(text, random);
    let file: Uint8Array = frame(encode(text), data);
    const kind = random.below(16);
    if (kind === 0) file = Uint8Array.from({ length: random.below(64) }, () => random.below(256));
    else if (kind === 1) file[random.below(8)] = random.below(256);
    else if (kind === 2) file = file.subarray(0, random.below(file.length + 1));
    else if (kind === 3) file = concatenate(file, new Uint8Array(1 + random.below(4)));
    yield file;
  }
}
