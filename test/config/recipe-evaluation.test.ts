import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { parseRecipe } from '../../config/recipe.ts';
import type { WeldlineError } from '../../engine/errors.ts';
import { expectProblem, HEAD, problemsOf, readRecipe, TWO } from './quality-recipe.ts';

describe('an evaluation', () => {
  it('has defaults, and paths relative to the recipe', () => {
    const evaluate = { suites: [{ id: 'support', data: './eval.jsonl' }] };
    expect(readRecipe({ evaluate }).evaluation).toEqual({
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
    const recipe = readRecipe({ evaluate, approval: 'required' }, TWO);
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
    expect(readRecipe({ approval: 'none' })).not.toHaveProperty('approval');
    expect(readRecipe({})).not.toHaveProperty('evaluation');
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
    [
      'one model for two candidates, which would pass beside itself',
      ', models: { "adapter:a": m, merged: m }',
      'models.merged: adapter:a is "m" already',
    ],
  ])('is refused for %s', (_, models, problem) => {
    const problems = problemsOf(endpoint(`url: "http://host/v1"${models}`));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(`evaluate.endpoint.${problem}`);
    expect(problems[0]).toMatch(/^3:\d+ /);
  });
});
