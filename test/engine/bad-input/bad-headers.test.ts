import { describe, test } from 'vitest';
import {
  concatenate,
  frame,
  headerMembers,
  writeSafetensors,
} from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal, type Inputs } from './expect-refusal.ts';

const text = (content: string): Uint8Array => new TextEncoder().encode(content);

/** Files that no tensor can be read from, whatever tensors were meant. */
const WHOLE_FILES: readonly [string, BadInput['code'], Uint8Array][] = [
  ['an empty file', 'safetensors.too-short', new Uint8Array(0)],
  ['seven bytes', 'safetensors.too-short', new Uint8Array(7)],
  [
    'a Git LFS pointer',
    'safetensors.git-lfs-pointer',
    text('version https://git-lfs.github.com/spec/v1\noid sha256:4cb1\nsize 269060552\n'),
  ],
  ['a zip pickle', 'safetensors.pickle', text('PK\x03\x04\x00\x00\x08\x08archive/data.pkl')],
  [
    'a bare pickle',
    'safetensors.pickle',
    new Uint8Array([0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46]),
  ],
  [
    'a web page',
    'safetensors.header-too-large',
    text('<!doctype html><html><body>404</body></html>'),
  ],
  [
    'a header length of 2^63',
    'safetensors.header-too-large',
    new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0x80, 0x7b, 0x7d]),
  ],
  [
    'a header length of 2^64 - 1',
    'safetensors.header-too-large',
    new Uint8Array([255, 255, 255, 255, 255, 255, 255, 255, 0x7b, 0x7d]),
  ],
  [
    'a header longer than the file',
    'safetensors.header-truncated',
    new Uint8Array([200, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]),
  ],
  ['a header of no bytes', 'safetensors.header-bad-start', frame('')],
  ['a header that is a list', 'safetensors.header-bad-start', frame('[]')],
  ['a header that starts with a space', 'safetensors.header-bad-start', frame(' {}')],
  ['a header with a byte order mark', 'safetensors.header-bad-start', frame('\ufeff{}')],
  [
    'a header that is not UTF-8',
    'safetensors.header-not-utf8',
    frame(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])),
  ],
  ['a header that is not JSON', 'safetensors.header-not-json', frame('{"a":}')],
  ['a header with a trailing comma', 'safetensors.header-not-json', frame('{"a":1,}')],
  ['a second value after the header', 'safetensors.header-not-json', frame('{}{}')],
  ['an unclosed nest of lists', 'safetensors.header-not-json', frame(`{"a":${'['.repeat(50_000)}`)],
  [
    'a closed nest of lists',
    'safetensors.bad-entry',
    frame(`{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`),
  ],
  [
    'a nest of objects',
    'safetensors.bad-entry',
    frame(`${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`),
  ],
  [
    'a duplicate key deep in a nest',
    'safetensors.duplicate-key',
    frame(`${'{"a":'.repeat(50_000)}{"x":1,"x":2}${'}'.repeat(50_000)}`),
  ],
  ['metadata that is a list', 'safetensors.bad-metadata', frame('{"__metadata__":[]}')],
  ['metadata with a number', 'safetensors.bad-metadata', frame('{"__metadata__":{"a":1}}')],
  [
    'metadata with half a surrogate pair',
    'safetensors.bad-metadata',
    frame('{"__metadata__":{"a":"\\ud800"}}'),
  ],
];

const ONE = '"one":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}';

/** Headers around 4 bytes of data. */
const HEADERS: readonly [string, BadInput['code'], string][] = [
  ['the same tensor twice', 'safetensors.duplicate-key', `{${ONE},${ONE}}`],
  [
    'the same tensor in two spellings',
    'safetensors.duplicate-key',
    `{${ONE},"\\u006fne":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
  ],
  [
    'the same field twice',
    'safetensors.duplicate-key',
    '{"one":{"dtype":"U8","shape":[5],"shape":[4],"data_offsets":[0,4]}}',
  ],
  ['a tensor that is a number', 'safetensors.bad-entry', '{"one":4}'],
  ['a tensor that is null', 'safetensors.bad-entry', '{"one":null}'],
  ['a tensor that is a list', 'safetensors.bad-entry', '{"one":[]}'],
  [
    'a tensor with a field that is not known',
    'safetensors.bad-entry',
    '{"one":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"compressed":"zstd"}}',
  ],
  [
    'an offset written 4.0',
    'safetensors.bad-entry',
    '{"one":{"dtype":"U8","shape":[4],"data_offsets":[0,4.0]}}',
  ],
  [
    'an offset written 4e0',
    'safetensors.bad-entry',
    '{"one":{"dtype":"U8","shape":[4],"data_offsets":[0,4e0]}}',
  ],
  [
    'an offset written -0',
    'safetensors.bad-entry',
    '{"one":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}',
  ],
  ['an empty name', 'safetensors.bad-name', ONE.replace('one', '').replace(/^.*$/, '{$&}')],
  ['a name with NUL', 'safetensors.bad-name', `{${ONE.replace('one', 'o\\u0000ne')}}`],
  [
    'a name with an escape sequence',
    'safetensors.bad-name',
    `{${ONE.replace('one', '\\u001b[2Jone')}}`,
  ],
  [
    'a name with half a surrogate pair',
    'safetensors.bad-name',
    `{${ONE.replace('one', 'one\\udc00')}}`,
  ],
  ['a name with a backslash', 'safetensors.bad-name', `{${ONE.replace('one', 'one\\\\')}}`],
  [
    'a name of a megabyte',
    'safetensors.bad-name',
    `{${ONE.replace('one', 'one'.repeat(350_000))}}`,
  ],
  ['no dtype', 'safetensors.unknown-dtype', '{"one":{"shape":[4],"data_offsets":[0,4]}}'],
  ['an unknown dtype', 'safetensors.unknown-dtype', `{${ONE.replace('U8', 'F17')}}`],
  [
    'a dtype that every object has',
    'safetensors.unknown-dtype',
    `{${ONE.replace('U8', 'constructor')}}`,
  ],
  ['a dtype of a megabyte', 'safetensors.unknown-dtype', `{${ONE.replace('U8', 'U'.repeat(1e6))}}`],
  ['a negative extent', 'safetensors.bad-shape', `{${ONE.replace('[4]', '[-4]')}}`],
  ['half an extent', 'safetensors.bad-shape', `{${ONE.replace('[4]', '[4.5]')}}`],
  ['an extent in quotes', 'safetensors.bad-shape', `{${ONE.replace('[4]', '["4"]')}}`],
  ['no shape', 'safetensors.bad-shape', '{"one":{"dtype":"U8","data_offsets":[0,4]}}'],
  ['33 dimensions', 'safetensors.bad-shape', `{${ONE.replace('[4]', `[4${',1'.repeat(32)}]`)}}`],
  [
    'a shape whose product overflows to a small number',
    'safetensors.size-mismatch',
    `{${ONE.replace('[4]', '[4294967296,4294967296]')}}`,
  ],
  [
    'an overflow that a zero hides',
    'safetensors.size-mismatch',
    `{${ONE},"two":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[4,4]}}`,
  ],
  ['a negative offset', 'safetensors.bad-offsets', `{${ONE.replace('[0,4]', '[-4,0]')}}`],
  ['half an offset', 'safetensors.bad-offsets', `{${ONE.replace('[0,4]', '[0.5,4]')}}`],
  ['one offset', 'safetensors.bad-offsets', `{${ONE.replace('[0,4]', '[4]')}}`],
  ['offsets the wrong way round', 'safetensors.bad-offsets', `{${ONE.replace('[0,4]', '[4,0]')}}`],
  [
    'offsets past 2^53',
    'safetensors.bad-offsets',
    `{${ONE.replace('[0,4]', '[9007199254740992,9007199254740996]')}}`,
  ],
  [
    'a shape that does not fill its bytes',
    'safetensors.size-mismatch',
    `{${ONE.replace('[4]', '[3]')}}`,
  ],
  [
    'three values of four bits',
    'safetensors.size-mismatch',
    `{${ONE.replace('U8","shape":[4]', 'F4","shape":[3]')}}`,
  ],
  [
    'overlapping tensors',
    'safetensors.overlap',
    '{"one":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"two":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
  ],
  [
    'a gap between tensors',
    'safetensors.gap',
    '{"one":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"two":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
  ],
  [
    'a gap before the first tensor',
    'safetensors.gap',
    '{"one":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
  ],
  [
    'a byte that no tensor has',
    'safetensors.trailing-bytes',
    '{"one":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}',
  ],
  [
    'a tensor past the end',
    'safetensors.truncated',
    '{"one":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}',
  ],
];

/** The tensor that the message must name, where the problem lies in one. */
const TENSOR_BY_CODE: Partial<Record<BadInput['code'], string>> = {
  'safetensors.unknown-dtype': '"one"',
  'safetensors.bad-shape': '"one"',
  'safetensors.bad-offsets': '"one"',
  'safetensors.overlap': '"two"',
};

function inBase(bytes: (inputs: Inputs) => Uint8Array): BadInput['spoil'] {
  return (inputs) => {
    inputs.base.files['model.safetensors'] = bytes(inputs);
  };
}

describe('a base whose file is', () => {
  test.each(WHOLE_FILES)('%s', async (what, code, bytes) => {
    const spoil = inBase(() => bytes);
    await expectRefusal({ what, code, names: ['base/model.safetensors'], spoil });
  });
});

describe('a base whose header has', () => {
  test.each(HEADERS)('%s', async (what, code, header) => {
    const spoil = inBase(() => frame(header, new Uint8Array(4)));
    const tensor = TENSOR_BY_CODE[code];
    await expectRefusal({ what, code, names: ['base/model.safetensors', tensor ?? ''], spoil });
  });
});

describe('sound files, slightly spoilt', () => {
  const cases: readonly BadInput[] = [
    {
      what: 'the base lacks its last byte',
      code: 'safetensors.truncated',
      names: ['base/model.safetensors', '1 bytes'],
      spoil: inBase(({ base }) => writeSafetensors(base.tensors).subarray(0, -1)),
    },
    {
      what: 'the base has one byte more',
      code: 'safetensors.trailing-bytes',
      names: ['base/model.safetensors', '1 bytes'],
      spoil: inBase(({ base }) => concatenate(writeSafetensors(base.tensors), new Uint8Array(1))),
    },
    {
      what: 'the adapter lacks its last byte',
      code: 'safetensors.truncated',
      names: ['adapter/adapter_model.safetensors'],
      spoil: ({ adapter }) => {
        const bytes = writeSafetensors(adapter.tensors).subarray(0, -1);
        adapter.files['adapter_model.safetensors'] = bytes;
      },
    },
    {
      what: 'the adapter is a Git LFS pointer',
      code: 'safetensors.git-lfs-pointer',
      names: ['adapter/adapter_model.safetensors', 'git lfs pull'],
      spoil: ({ adapter }) => {
        adapter.files['adapter_model.safetensors'] = 'version https://git-lfs.github.com/spec/v1\n';
      },
    },
    {
      what: 'more tensors than any model has',
      code: 'safetensors.too-many-tensors',
      names: ['base/model.safetensors', '400001'],
      spoil: inBase(() => {
        const data = new Uint8Array(0);
        const tensors = Array.from({ length: 400_001 }, (_, index) => ({
          name: `t${index}`,
          dtype: 'U8',
          shape: [0],
          data,
        }));
        return frame(`{${headerMembers(tensors).join(',')}}`);
      }),
    },
  ];
  test.each(cases)('$what', expectRefusal);
});
