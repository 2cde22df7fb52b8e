/** What recipes say of conversions, evaluation and approval. */
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { parseRecipe, type Recipe } from '../../config/recipe.ts';
import { WeldlineError } from '../../engine/errors.ts';

const HEAD = {
  name: 'support',
  version: '1.2.0',
  base: { model: 'hf://org/base' },
  adapters: [{ id: 'a', model: './a' }],
};
const TWO = {
  ...HEAD,
  adapters: [...HEAD.adapters, { id: 'b', model: './b' }],
  combination: { method: 'linear' },
};

function read(quality: object, head: object = HEAD): Recipe {
  return parseRecipe(stringify({ ...head, ...quality }), '/recipes/r.yaml').recipe;
}

/** All problems of a recipe that ends in these lines, the first of which is line 7. */
function problemsOf(text: string, head: object = HEAD): string[] {
  const start = stringify(head);
  const above = start.split('\n').length - 1;
  try {
    parseRecipe(start + text, 'r.yaml');
  } catch (error) {
    if (!(error instanceof WeldlineError) || error.code !== 'recipe.invalid') throw error;
    const problems = error.details['problems'] as readonly string[];
    return problems.map((problem) =>
      problem.replace(/^r\.yaml:(\d+)/, (_, line: string) => String(Number(line) - above)),
    );
  }
  throw new Error('the recipe was accepted');
}

/** One problem, at `line:column` of the lines, that begins so. */
function expectProblem(text: string, problem: string, head?: object): void {
  const problems = problemsOf(text, head);
  expect(problems).toHaveLength(1);
  expect(problems[0]?.slice(0, problem.length)).toBe(problem);
}

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
    expect(read({ convert }).conversions).toEqual([
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
    expect(read({ convert: [{ gguf }, { awq }] }).conversions).toEqual([
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
    expect(read({ convert: [{ gguf: file }] }).conversions?.[0]).toMatchObject({
      imatrix: { file: '/recipes/m.gguf' },
    });
  });

  it('are absent where the recipe names none', () => {
    expect(read({})).not.toHaveProperty('conversions');
    expect(read({ convert: [] }).conversions).toEqual([]);
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
    expect(read({ convert }).conversions).toHaveLength(3);
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

describe('an evaluation', () => {
  it('has defaults, and paths relative to the recipe', () => {
    const evaluate = { suites: [{ id: 'support', data: './eval.jsonl' }] };
    expect(read({ evaluate }).evaluation).toEqual({
      suites: [
        {
          id: 'support',
          data: '/recipes/eval.jsonl',
          adapter: 'a',
          matcher: 'contains',
          newTokensMax: 64,
          dropMax: 0.001,
        },
      ],
      onFailure: 'wait',
    });
  });

  it('may be said in full', () => {
    const suite = {
      id: 'names',
      data: '~/eval.jsonl',
      text: '/data/text.txt',
      adapter: 'b',
      matcher: 'json',
      max_new_tokens: 8,
      max_drop: 0,
      min_score: 1,
      max_kl: 0.05,
      max_perplexity_rise: 0.02,
    };
    const models = { base: 'base', 'adapter:a': 'a', merged: 'm', 'awq-w4a16-g128': 'awq' };
    const evaluate = {
      suites: [suite],
      endpoint: { url: 'http://127.0.0.1:8000/v1/', models },
      on_failure: 'stop',
    };
    const recipe = read({ evaluate, approval: 'required' }, TWO);
    expect(recipe.approval).toBe('required');
    expect(recipe.evaluation).toMatchObject({
      suites: [
        {
          text: '/data/text.txt',
          adapter: 'b',
          matcher: 'json',
          newTokensMax: 8,
          dropMax: 0,
          scoreMin: 1,
          klMax: 0.05,
          perplexityRiseMax: 0.02,
        },
      ],
      endpoint: { url: 'http://127.0.0.1:8000/v1', models },
      onFailure: 'stop',
    });
    expect(recipe.evaluation?.suites[0]?.data).toMatch(/^\/.*\/eval\.jsonl$/);
  });

  it('asks nobody where the recipe does not say so', () => {
    expect(read({ approval: 'none' })).not.toHaveProperty('approval');
    expect(read({})).not.toHaveProperty('evaluation');
  });

  const suite = (settings: string) => `evaluate:\n  suites:\n    - { id: s, ${settings} }`;

  it.each([
    [
      'no suites',
      'evaluate: {}',
      '1:11 evaluate.suites: missing; expected a list of 1 to 50 suites',
    ],
    [
      'an empty list of suites',
      'evaluate: { suites: [] }',
      '1:21 evaluate.suites: expected a list of 1 to 50 suites: {id, data, …}; got a list of 0',
    ],
    [
      'a suite without prompts and text',
      suite('max_drop: 0'),
      '3:7 evaluate.suites.0: give data (JSONL with answers), text (for perplexity), or both',
    ],
    [
      'a name with spaces',
      'evaluate: { suites: [{ id: my suite, data: d }] }',
      '1:28 evaluate.suites.0.id: expected a short name of the suite: letters, digits',
    ],
    [
      'a misspelt key',
      suite('data: d, min_scor: 0.9'),
      '3:25 evaluate.suites.0.min_scor: unknown key; did you mean min_score?',
    ],
    [
      'a matcher that there is not',
      suite('data: d, matcher: exactly'),
      '3:34 evaluate.suites.0.matcher: expected one of contains, exact, regex, json, choice, how answers are judged (default contains); got "exactly"; did you mean exact?',
    ],
    [
      'a drop in percents',
      suite('data: d, max_drop: 5'),
      '3:35 evaluate.suites.0.max_drop: expected a number from 0 to 1',
    ],
    [
      'a score in words',
      suite('data: d, min_score: 90%'),
      '3:36 evaluate.suites.0.min_score: expected a number from 0 to 1, which the score must reach; got "90%"',
    ],
    [
      'no divergence at all',
      suite('data: d, max_kl: 0'),
      '3:33 evaluate.suites.0.max_kl: expected a number above 0',
    ],
    [
      'answers of no length',
      suite('data: d, max_new_tokens: 0'),
      '3:41 evaluate.suites.0.max_new_tokens: expected a whole number of tokens of an answer from 1 to 65536',
    ],
    [
      'a demand on answers that are not there',
      suite('text: t, min_score: 0.9'),
      '3:36 evaluate.suites.0.min_score: min_score is about data, and this suite has none',
    ],
    [
      'a demand on text that is not there',
      suite('data: d, max_perplexity_rise: 0.1'),
      '3:46 evaluate.suites.0.max_perplexity_rise: max_perplexity_rise is about text',
    ],
    [
      'two suites of one name',
      'evaluate:\n  suites:\n    - { id: s, data: d }\n    - { id: s, data: e }',
      '4:13 evaluate.suites.1.id: two suites have the id "s"; give each an id of its own',
    ],
    [
      'an adapter that there is not',
      suite('data: d, adapter: c'),
      '3:34 evaluate.suites.0.adapter: there is no adapter "c"; there is a',
    ],
    [
      'another consequence',
      'evaluate: { suites: [{ id: s, data: d }], on_failure: ignore }',
      '1:55 evaluate.on_failure: expected wait (for a person, who may override) or stop',
    ],
    ['another approval', 'approval: yes', '1:11 approval: expected none, or required'],
  ])('is refused for %s', (_, text, problem) => {
    expectProblem(`${text}\n`, problem);
  });

  it('says which adapter a suite is about, where there are several', () => {
    expectProblem(
      `${suite('data: d')}\n`,
      '3:7 evaluate.suites.0.adapter: there are several adapters: say which one it is about, a or b',
      TWO,
    );
  });
});

describe('an endpoint', () => {
  const endpoint = (settings: string) =>
    `evaluate:\n  suites: [{ id: s, data: d }]\n  endpoint: { ${settings} }\n`;
  const URL_PROBLEM =
    '3:20 evaluate.endpoint.url: expected the URL of an OpenAI-compatible server such as ' +
    'http://127.0.0.1:8000/v1, without credentials or a query (a key goes into WELDLINE_ENDPOINT_KEY)';

  it.each([
    ['a user', 'http://someone@host/v1'],
    ['a key in the query', 'https://host/v1?key=abc123'],
    ['another scheme', 'ftp://host/v1'],
    ['no URL', 'localhost 8000'],
  ])('is refused for %s, which is not repeated', (_, url) => {
    expect(problemsOf(endpoint(`url: "${url}", models: { merged: m }`))).toEqual([URL_PROBLEM]);
  });

  it('is refused for a password before anything is shown', () => {
    const password = ['hun', 'ter2'].join('');
    const text =
      stringify(HEAD) + endpoint(`url: "http://me:${password}@host", models: { base: b }`);
    const error = (() => {
      try {
        return parseRecipe(text, 'r.yaml');
      } catch (caught) {
        return caught as WeldlineError;
      }
    })();
    expect(error).toMatchObject({ code: 'recipe.secret' });
    expect(JSON.stringify([(error as WeldlineError).message])).not.toContain(password);
  });

  it.each([
    ['no models', '', 'models: missing'],
    ['an empty list of models', ', models: {}', 'models: name at least one candidate'],
    [
      'a candidate that there is not',
      ', models: { merge: m }',
      'models.merge: there is no such candidate: expected base, merged, adapter:<id>',
    ],
    [
      'an adapter that there is not',
      ', models: { "adapter:c": c }',
      'models.adapter:c: there is no adapter "c"; there is a',
    ],
    [
      'a model whose name is a number',
      ', models: { merged: 7 }',
      'models.merged: expected the name under which the server has it, got the number 7; quote it: "7"',
    ],
  ])('is refused for %s', (_, models, problem) => {
    const problems = problemsOf(endpoint(`url: "http://host/v1"${models}`));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(`evaluate.endpoint.${problem}`);
    expect(problems[0]).toMatch(/^3:\d+ /);
  });
});
