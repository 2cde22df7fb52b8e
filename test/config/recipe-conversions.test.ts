import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { expectProblem, problemsOf, readRecipe } from './quality-recipe.ts';

describe('conversions', () => {
  it('have defaults, and paths relative to the recipe', () => {
    const convert = [
      { gguf: { quantization: ['Q4_K_M', 'F16'] } },
      { awq: { calibration: './calibration.jsonl' } },
      { gptq: { calibration: '/data/calibration.txt' } },
    ];
    const integer = {
      bits: 4,
      groupSize: 128,
      symmetric: true,
      ignore: ['lm_head'],
      samples: 256,
      sequenceLength: 512,
    };
    expect(readRecipe({ convert }).conversions).toEqual([
      { kind: 'gguf', quantizations: ['Q4_K_M', 'F16'], from: 'F16', adapters: false },
      { kind: 'awq', ...integer, calibration: '/recipes/calibration.jsonl' },
      { kind: 'gptq', ...integer, calibration: '/data/calibration.txt' },
    ]);
  });

  it('may be said in full', () => {
    const gguf = {
      quantization: ['IQ2_XS'],
      from: 'BF16',
      imatrix: { calibration: '../text.txt' },
      split: '2GB',
      adapters: true,
    };
    const awq = {
      bits: 8,
      group_size: 64,
      symmetric: false,
      ignore: ['lm_head', 're:.*gate$'],
      calibration: 'c.jsonl',
      samples: 4,
      sequence_length: 64,
    };
    expect(readRecipe({ convert: [{ gguf }, { awq }] }).conversions).toEqual([
      {
        kind: 'gguf',
        quantizations: ['IQ2_XS'],
        from: 'BF16',
        imatrix: { calibration: '/text.txt' },
        splitBytes: 2_000_000_000,
        adapters: true,
      },
      {
        kind: 'awq',
        bits: 8,
        groupSize: 64,
        symmetric: false,
        ignore: ['lm_head', 're:.*gate$'],
        calibration: '/recipes/c.jsonl',
        samples: 4,
        sequenceLength: 64,
      },
    ]);
    const file = { quantization: ['IQ1_S'], imatrix: { file: 'm.gguf' } };
    expect(readRecipe({ convert: [{ gguf: file }] }).conversions?.[0]).toMatchObject({
      imatrix: { file: '/recipes/m.gguf' },
    });
  });

  it('are absent where the recipe names none', () => {
    expect(readRecipe({})).not.toHaveProperty('conversions');
    expect(readRecipe({ convert: [] }).conversions).toEqual([]);
  });

  it.each([
    ['no list', 'convert: gguf', '1:10 convert: expected a list of up to 20 conversions'],
    [
      'another format',
      'convert:\n  - exl2: {}',
      '2:5 convert.0.exl2: unknown key; known here: gguf, awq, gptq',
    ],
    [
      'none in an item',
      'convert:\n  - {}',
      '2:5 convert.0: expected one of gguf, awq or gptq; begin a new list item for each',
    ],
    [
      'two in one item',
      'convert:\n  - gguf: { quantization: [F16] }\n    gptq: { calibration: c }',
      '2:5 convert.0: expected one of gguf, awq or gptq; begin a new list item for each',
    ],
    [
      'no quantization',
      'convert:\n  - gguf: {}',
      '2:11 convert.0.gguf.quantization: missing; expected a list of GGUF types such as [Q4_K_M, Q8_0, F16]',
    ],
    [
      'one quantization that is no list',
      'convert:\n  - gguf: { quantization: Q4_K_M }',
      '2:27 convert.0.gguf.quantization: expected a list of GGUF types such as [Q4_K_M, Q8_0, F16]; got "Q4_K_M"',
    ],
    [
      'a quantization twice',
      'convert:\n  - gguf: { quantization: [F16, Q8_0, F16] }',
      '2:39 convert.0.gguf.quantization.2: F16 is given twice; keep one',
    ],
    [
      'a type that needs an importance matrix, and none',
      'convert:\n  - gguf: { quantization: [Q8_0, IQ2_XS] }',
      '2:34 convert.0.gguf.quantization.1: IQ2_XS cannot be made without an importance matrix: add imatrix',
    ],
    [
      'an importance matrix of nothing',
      'convert:\n  - gguf: { quantization: [Q8_0], imatrix: {} }',
      '2:44 convert.0.gguf.imatrix: give either file (an importance matrix) or calibration (text',
    ],
    [
      'two importance matrices',
      'convert:\n  - gguf: { quantization: [Q8_0], imatrix: { file: m, calibration: c } }',
      '2:44 convert.0.gguf.imatrix: give either file',
    ],
    [
      'parts of no size',
      'convert:\n  - gguf: { quantization: [Q8_0], split: 2Gb }',
      '2:42 convert.0.gguf.split: "2Gb" is not a size',
    ],
    [
      'a source that is quantized',
      'convert:\n  - gguf: { quantization: [Q8_0], from: Q8_0 }',
      '2:41 convert.0.gguf.from: expected F16, BF16 or F32',
    ],
    [
      'AWQ without data, with the reason',
      'convert:\n  - awq: { bits: 4 }',
      '2:10 convert.0.awq.calibration: missing; expected the path of JSONL or text of your own, because which weights matter is decided by what the model will be used for',
    ],
    [
      'GPTQ with nothing at all',
      'convert:\n  - gptq:',
      '2:5 convert.0.gptq: expected a mapping {bits, group_size',
    ],
    [
      'three bits',
      'convert:\n  - awq: { bits: 3, calibration: c }',
      '2:18 convert.0.awq.bits: expected 4 or 8 (default 4); got 3',
    ],
    [
      'groups that are too small',
      'convert:\n  - awq: { group_size: 4, calibration: c }',
      '2:24 convert.0.awq.group_size: expected a whole number from 8 to 16384',
    ],
    [
      'no samples',
      'convert:\n  - awq: { samples: 0, calibration: c }',
      '2:21 convert.0.awq.samples: expected a whole number of calibration samples from 1 to 100000',
    ],
    [
      'short sequences',
      'convert:\n  - awq: { sequence_length: 2, calibration: c }',
      '2:29 convert.0.awq.sequence_length: expected a whole number of tokens from 8 to 1048576',
    ],
    [
      'a number to ignore',
      'convert:\n  - awq: { ignore: [7], calibration: c }',
      '2:21 convert.0.awq.ignore.0: expected a module name, or "re:" and a pattern, got the number 7; quote it: "7"',
    ],
    [
      'GGUF twice',
      'convert:\n  - gguf: { quantization: [F16] }\n  - gguf: { quantization: [Q8_0] }',
      '3:5 convert.1: there is gguf already: give each kind of conversion once',
    ],
    [
      'the same AWQ twice, once by default',
      'convert:\n  - awq: { calibration: c }\n  - awq: { bits: 4, group_size: 128, calibration: d }',
      '3:5 convert.1: there is awq of 4 bits in groups of 128 already',
    ],
  ])('are refused for %s', (_, text, problem) => {
    expectProblem(`${text}\n`, problem);
  });

  it('suggest the type that was meant', () => {
    const [problem] = problemsOf('convert:\n  - gguf: { quantization: [q4_k_m] }\n');
    expect(problem).toMatch(/^2:28 convert\.0\.gguf\.quantization\.0: expected one of F32, BF16/);
    expect(problem).toMatch(/; got "q4_k_m"; did you mean Q4_K_M\?$/);
  });

  it('may be of one kind in several sizes', () => {
    const awq = (settings: object) => ({ awq: { calibration: 'c', ...settings } });
    const convert = [awq({}), awq({ bits: 8 }), awq({ group_size: 64 })];
    expect(readRecipe({ convert }).conversions).toHaveLength(3);
  });

  it('are not more than anybody serves', () => {
    const convert = Array.from({ length: 21 }, (_, index) => ({
      awq: { calibration: 'c', group_size: 8 * (index + 1) },
    }));
    expect(problemsOf(stringify({ convert }))).toEqual([
      '2:3 convert: expected a list of up to 20 conversions: {gguf}, {awq} or {gptq}; got a list of 21',
    ]);
  });
});
