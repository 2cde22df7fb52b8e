import { describe, expect, it } from 'vitest';
import { parseRecipe } from '../../config/recipe.ts';
import { WeldlineError } from '../../engine/errors.ts';

const GOOD = `name: support
version: 1.2.0
base:
  model: hf://org/base
adapters:
  - id: support
    model: ./support
merge:
  dtype: bfloat16
publish:
  - directory:
      path: ./releases
`;

function errorOf(text: string): WeldlineError {
  try {
    parseRecipe(text, 'r.yaml');
  } catch (error) {
    if (error instanceof WeldlineError) return error;
    throw error;
  }
  throw new Error('the recipe was accepted');
}

/** The recipe with one line replaced by others. */
function withLine(number: number, ...lines: string[]): string {
  return GOOD.split('\n')
    .toSpliced(number - 1, 1, ...lines)
    .join('\n');
}

const INVALID: [what: string, text: string, problems: string[]][] = [
  [
    'a version that YAML reads as a number',
    withLine(2, 'version: 1.10'),
    [
      '2:10 version: expected a version such as 1.2.0 or 2026.11-rc.1, or one made by each run: 1.2.{date} or 1.2.{date}.{time}, got the number 1.10; quote it: "1.10"',
    ],
  ],
  ['a version of words', withLine(2, 'version: latest'), ['2:10 version: expected a version']],
  [
    'a boolean for a name',
    withLine(1, 'name: true'),
    ['1:7 name: expected the name of the release'],
  ],
  ['a name with a slash', withLine(1, 'name: a/b'), ['1:7 name: expected the name of the release']],
  [
    'a missing base',
    GOOD.replace(/base:\n.*\n/, ''),
    [
      '1:1 base: missing; expected a mapping with the base model: {model, revision, fetch, merge_onto}',
    ],
  ],
  [
    'a misspelt key, and not also for the one that is missing',
    withLine(7, '    modle: ./support'),
    ['7:5 adapters.0.modle: unknown key; did you mean model?'],
  ],
  [
    'an unknown key with no neighbour',
    withLine(9, '  dtype: bfloat16', '  zstd: 3'),
    ['10:3 merge.zstd: unknown key; known here: dtype, max_shard_size, threads, memory_budget'],
  ],
  [
    'an evaluation without suites',
    `${GOOD}convert: []\nevaluate: {}\napproval: maybe\n`,
    ['14:11 evaluate.suites: missing', '15:11 approval: expected none, or required'],
  ],
  [
    'a quantisation without calibration data, and says why',
    `${GOOD}convert: [{ awq: { bits: 4 } }, { gptq: { calibration: '' } }]\n`,
    [
      "13:18 convert.0.awq.calibration: missing; expected the path of JSONL or text of your own, because which weights matter is decided by what the model will be used for, and nobody else's data says that",
      '13:56 convert.1.gptq.calibration: expected the path of JSONL or text of your own',
    ],
  ],
  [
    'a combination of a later version',
    `${GOOD}combination: { method: mean, mean: 0.5 }\n`,
    [
      '13:24 combination.method: expected linear (the sum of all adapters, each times its weight)',
      '13:30 combination.mean: unknown key; known here: method, rank, density, seed, majority_sign',
    ],
  ],
  [
    'a method of PEFT that cannot be had',
    `${GOOD}combination: { method: peft_dare_ties, density: 0.5 }\n`,
    ['13:24 combination.method: peft_dare_ties: PEFT drops values by chance'],
  ],
  [
    'an option of another method',
    `${GOOD}combination: { method: svd, density: 0.5 }\n`,
    ['13:38 combination.density: svd takes no density'],
  ],
  [
    'a rank that is none',
    `${GOOD}combination: { method: svd, rank: 0 }\n`,
    ['13:35 combination.rank: expected a whole number from 1 to 1024'],
  ],
  [
    'no density',
    `${GOOD}combination: { method: peft_ties }\n`,
    ['13:14 combination.density: peft_ties needs a density'],
  ],
  [
    'parameters that a method does not take, or not so',
    `${GOOD}combination: { method: ties, density: 1.5, seed: -1, majority_sign: most }\n`,
    [
      '13:39 combination.density: expected a number above 0 and up to 1',
      '13:50 combination.seed: expected a whole number of at least 0',
      '13:69 combination.majority_sign: expected total or frequency',
    ],
  ],
  [
    'a seed where nothing is random',
    `${GOOD}combination: { method: ties, density: 0.5, seed: 1 }\n`,
    ['13:50 combination.seed: ties chooses nothing at random and takes no seed'],
  ],
  [
    'no density',
    `${GOOD}combination: { method: dare_ties }\n`,
    ['13:14 combination.density: dare_ties needs a density'],
  ],
  [
    'a density of one of two adapters',
    `${withLine(7, '    model: ./support', '  - { id: sales, model: ./b, density: 0.5 }')}combination: { method: ties }\n`,
    ['6:5 adapters.0: there is no density for this adapter'],
  ],
  [
    'a density of an adapter that is only added',
    withLine(7, '    model: ./support', '    density: 0.5'),
    ['8:14 adapters.0.density: linear takes no density'],
  ],
  [
    'two adapters and no method',
    withLine(7, '    model: ./support', '  - { id: sales, model: ./sales }'),
    ['6:3 adapters: there are several adapters, and nothing says how to combine them'],
  ],
  [
    'two adapters of one id, and weights in a sequence',
    `${withLine(7, '    model: ./support', '  - { id: support, model: ./b, weight: 2 }')}combination: { method: sequential }
`,
    [
      '8:11 adapters.1.id: two adapters have the id "support"',
      '8:40 adapters.1.weight: sequential takes no weights',
    ],
  ],
  [
    'no adapter',
    GOOD.replace(/adapters:\n.*\n.*\n/, 'adapters: []\n'),
    ['5:11 adapters: expected'],
  ],
  [
    'a weight of nothing',
    withLine(7, '    model: ./support', '    weight: 0'),
    ['8:13 adapters.0.weight: a weight of 0 adds nothing'],
  ],
  [
    'a weight in words',
    withLine(7, '    model: ./support', '    weight: half'),
    ['8:13 adapters.0.weight: expected a number from -1000 to 1000'],
  ],
  [
    'an unknown dtype',
    withLine(9, '  dtype: int8'),
    ['9:10 merge.dtype: expected bfloat16, float16 or float32'],
  ],
  ['an empty value', withLine(9, '  dtype:'), ['9:3 merge.dtype: expected bfloat16']],
  [
    'a size in bits',
    withLine(9, '  max_shard_size: 5Gb'),
    ['9:19 merge.max_shard_size: "5Gb" is not a size: expected a size such as 5GB'],
  ],
  [
    'a size of the wrong type',
    withLine(9, '  memory_budget: [1]'),
    ['9:18 merge.memory_budget: expected a size'],
  ],
  [
    'weights to merge onto that there are not',
    withLine(4, '  model: ./base', '  merge_onto: simulated_fp4'),
    ['5:15 base.merge_onto: expected original, dequantized or simulated_nf4'],
  ],
  [
    'half a thread',
    withLine(9, '  threads: 1.5'),
    ['9:12 merge.threads: expected a whole number of threads'],
  ],
  [
    'a scheme that nothing is read from',
    withLine(4, '  model: gs://bucket/base'),
    ['4:10 base.model: gs:// is not supported'],
  ],
  [
    'a name in a URL',
    withLine(4, '  model: https://name@host/model'),
    ['4:10 base.model: expected a URI without a user name or password'],
  ],
  [
    'a query in a URL',
    withLine(4, '  model: https://host/model?version=1'),
    ['4:10 base.model: expected a URL without a query'],
  ],
  [
    'a hub name without its owner',
    withLine(4, '  model: hf://gpt2'),
    ['4:10 base.model: expected a path, hf://org/name[@revision]'],
  ],
  [
    'a revision that climbs',
    withLine(4, '  model: hf://org/base@../x'),
    ['4:10 base.model: expected a branch, tag or commit of the hub repository after "@"'],
  ],
  [
    'a revision given twice',
    withLine(4, '  model: hf://org/base@a', '  revision: b'),
    ['5:13 base.revision: the revision is given twice'],
  ],
  [
    'a revision of a directory',
    withLine(7, '    model: ./support', '    revision: main'),
    ['8:15 adapters.0.revision: a revision belongs to an hf:// model'],
  ],
  [
    'a commit that YAML reads as a number',
    withLine(4, '  model: hf://org/base', '  revision: 12e4567'),
    [
      '5:13 base.revision: expected a branch, tag or commit of the hub repository, got the number 12e4567; quote it: "12e4567"',
    ],
  ],
  [
    'a scalar for a list',
    GOOD.replace(/publish:[\s\S]*/, 'publish: none\n'),
    ['10:10 publish: expected a list of targets'],
  ],
  [
    'a list for the recipe',
    '- a\n- b\n',
    ['1:1 expected a mapping with name, version, base and adapters; got a list of 2'],
  ],
  [
    'nothing at all',
    '',
    ['1:1 expected a mapping with name, version, base and adapters; got nothing'],
  ],
  ['a merge key', `${GOOD}<<: { name: x }\n`, ['13:1 <<: unknown key']],
  ['a prototype', `${GOOD}__proto__: { x: 1 }\n`, ['13:1 __proto__: unknown key']],
];

const MALFORMED: [what: string, text: string, place: string, problem: string][] = [
  ['an unclosed list', withLine(8, 'merge: [1,'), '10:1', 'flow sequence'],
  ['an unclosed quote', withLine(1, 'name: "x'), '13:1', 'missing closing "quote'],
  ['a tab for indentation', withLine(9, '\tdtype: bfloat16'), '9:1', 'tabs are not allowed'],
  ['two mappings on a line', withLine(9, '  dtype: a: b'), '9:10', 'nested mappings'],
  [
    'a key given twice',
    withLine(7, '    model: ./a', '    model: ./b'),
    '8:5',
    'this key is given twice',
  ],
  [
    'a key given twice in JSON',
    '{\n  "name": "a",\n  "name": "b"\n}',
    '3:3',
    'this key is given twice',
  ],
  ['a second document', `${GOOD}---\nname: other\n`, '13:1', 'a recipe is one document'],
  ['a tag', withLine(1, 'name: !include x.yaml'), '1:16', 'the tag !include has no meaning'],
  [
    'a binary value',
    withLine(1, 'name: !!binary aGVsbG8='),
    '1:16',
    'the tag tag:yaml.org,2002:binary',
  ],
  ['an alias without an anchor', withLine(1, 'name: *who'), '1:7', 'the alias *who has no anchor'],
  ['brackets without end', '['.repeat(100_000), '1:', 'nested too deeply'],
];

describe('an invalid recipe', () => {
  it.each(INVALID)('is refused for %s', (_, text, problems) => {
    const error = errorOf(text);
    expect(error.code).toBe('recipe.invalid');
    const lines = error.message.split('\n').slice(1);
    expect(lines).toHaveLength(problems.length);
    for (const [index, problem] of problems.entries()) {
      expect(lines[index]?.slice(0, `  r.yaml:${problem}`.length)).toBe(`  r.yaml:${problem}`);
    }
  });

  it('lists all problems at once, in the order of the file', () => {
    const text = 'version: 2\nname: ""\nbase: { modell: x }\nadapters: [{ id: "a b" }]\nfoo: 1\n';
    const { details, message } = errorOf(text);
    const problems = details['problems'] as string[];
    expect(problems.map((problem) => problem.split(' ').slice(0, 2).join(' '))).toEqual([
      'r.yaml:1:10 version:',
      'r.yaml:2:7 name:',
      'r.yaml:3:9 base.modell:',
      'r.yaml:4:12 adapters.0.model:',
      'r.yaml:4:18 adapters.0.id:',
      'r.yaml:5:1 foo:',
    ]);
    expect(message).toMatch(/^r\.yaml is not a valid recipe, 6 problems:\n/);
  });
});

describe('a malformed recipe', () => {
  it.each(MALFORMED)('is refused for %s', (_, text, place, problem) => {
    const error = errorOf(text);
    expect(error.code).toBe('recipe.syntax');
    expect(error.message.startsWith(`r.yaml:${place}`)).toBe(true);
    expect(error.message).toContain(problem);
  });

  it('is shown at its line', () => {
    expect(errorOf(withLine(9, '  dtype: a: b')).message).toBe(
      'r.yaml:9:10: nested mappings are not allowed in compact mappings\n' +
        '    dtype: a: b\n' +
        '           ^',
    );
  });

  it('cannot grow by aliases of aliases', () => {
    const levels = Array.from({ length: 30 }, (_, i) => `l${i + 1}: &l${i + 1} [*l${i}, *l${i}]`);
    const error = errorOf(['l0: &l0 [x]', ...levels].join('\n'));
    expect(error.code).toBe('recipe.syntax');
    expect(error.message).toContain('more than 50 aliases');
  });

  it('cannot grow by a few aliases that multiply', () => {
    const levels = Array.from(
      { length: 12 },
      (_, i) => `l${i + 1}: &l${i + 1} [*l${i}, *l${i}, *l${i}]`,
    );
    const error = errorOf(['l0: &l0 [x]', ...levels].join('\n'));
    expect(error.code).toBe('recipe.syntax');
    expect(error.message).toContain('alias');
  });
});

describe('a recipe with a credential', () => {
  // Put together here, so that no scanner takes this file for one that holds credentials.
  const secrets: [kind: string, secret: string][] = [
    ['a Hugging Face token', `hf_${'aB3'.repeat(11)}`],
    ['an AWS access key', `AKIA${'ABCD'.repeat(4)}`],
    ['a GitHub token', `ghp_${'a1'.repeat(18)}`],
    ['an API key', `sk-${'a1B2'.repeat(8)}`],
    ['a URL with a password', `https://me:${'hunter2'}@host/model`],
    ['a signed URL', `?X-Amz-Signature=${'0f'.repeat(20)}`],
    ['a private key or certificate', `-----${'BEGIN'} PRIVATE KEY-----`],
  ];

  it.each(secrets)('is refused for %s, without showing it', (kind, secret) => {
    for (const text of [
      withLine(7, `    model: "${secret}"`),
      withLine(7, `#   model: "${secret}`),
    ]) {
      const error = errorOf(text);
      expect(error.code).toBe('recipe.secret');
      expect(error.message).toContain(`r.yaml:7:13 looks like ${kind}`);
      expect(JSON.stringify([error.message, error.details, error.stack])).not.toContain(
        secret.slice(12, 28),
      );
    }
  });

  it('is refused before a syntax error could show its line', () => {
    const error = errorOf(`token: hf_${'x'.repeat(34)}: [\n`);
    expect(error.code).toBe('recipe.secret');
  });

  it('is not suspected in ordinary names', () => {
    for (const model of [
      './hf_models/sk-learn',
      './AKIA',
      'hf://org/hf_model-AKIA@v1',
      './a:b@c',
    ]) {
      expect(parseRecipe(withLine(7, `    model: ${model}`), 'r.yaml').recipe.name).toBe('support');
    }
  });
});
