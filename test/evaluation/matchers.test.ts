import { describe, expect, it } from 'vitest';
import type { Matcher } from '../../config/release-quality.ts';
import { expectationProblem, isCorrect } from '../../evaluation/suites/matchers.ts';

function judge(matcher: Matcher, expected: string | readonly string[], answer: string): boolean {
  return isCorrect(answer, { index: 7, prompt: '', addSpecialTokens: true, expected, matcher });
}

describe('matchers', () => {
  it.each<[Matcher, string | readonly string[], string, boolean]>([
    ['contains', 'Oslo', 'It is Oslo, of course', true],
    ['contains', 'Oslo', 'It is oslo', false],
    ['contains', ['Oslo', 'Kristiania'], 'Kristiania', true],
    ['contains', ['Oslo', 'Kristiania'], 'Bergen', false],
    ['exact', ' [10]', ' [10]', true],
    ['exact', ' [10]', ' [10]\n\n', true],
    ['exact', ' [10]\n', ' [10]\r\n', true],
    ['exact', ' [10]', '[10]', false],
    ['exact', ' [10]', ' [10] ', false],
    ['exact', ' [10]', ' [10]\nQ: 1+1 =', false],
    ['exact', 'é', 'e\u0301', false],
    ['regex', '^\\s*\\d{2}$', ' 42', true],
    ['regex', '^\\s*\\d{2}$', ' 421', false],
    ['regex', '^.$', '🎉', true],
    ['regex', ['a', 'b+'], 'xbb', true],
    ['json', '{"a": 1, "b": [true, null]}', 'Here: {"b": [true, null], "a": 1.0} done', true],
    ['json', '{"a": 1}', '```json\n{"a": 1}\n```', true],
    ['json', '{"a": 1}', '{"a": 1, "b": 2}', false],
    ['json', '{"a": 1}', '{"a": "1"}', false],
    ['json', '{"a": "}"}', 'so {not json} and {"a": "}"} end', true],
    ['json', '[1, 2]', '[2, 1]', false],
    ['json', '{"0": 1, "1": 2}', '[1, 2]', false],
    ['json', '{}', '[]', false],
    ['json', '42', '42', true],
    ['json', '{"a": 1}', '{"a": 1', false],
    ['json', '{"a": 1}', 'null', false],
    ['json', '{"__proto__": 1}', '{}', false],
    ['choice', 'B', ' (B) because it is', true],
    ['choice', 'B', '**b**.', true],
    ['choice', 'B', 'Because of A', false],
    ['choice', ['A', 'C'], 'C)', true],
    ['choice', '10', ' [10]', true],
    ['choice', 'B', '', false],
  ])('%s %j in %j: %s', (matcher, expected, answer, correct) => {
    expect(judge(matcher, expected, answer)).toBe(correct);
  });

  it('stop a pattern that backtracks without end, and name it', () => {
    const started = Date.now();
    expect(() => judge('regex', '^(a+)+$', `${'a'.repeat(60)}!`)).toThrow(
      /pattern of prompt 7 takes more than .*\(a\+\)\+/,
    );
    expect(Date.now() - started).toBeLessThan(15_000);
  });

  it.each([
    ['contains', 'x'.repeat(1_000_000)],
    ['exact', `${'\n'.repeat(1_000_000)}x`],
    ['json', '{'.repeat(1_000_000)],
    ['json', '["'.repeat(1_000_000)],
    ['choice', '('.repeat(1_000_000)],
  ] as const)('judge the longest answers at once: %s', (matcher, answer) => {
    const started = Date.now();
    expect(judge(matcher, '{"a": 1}', answer)).toBe(false);
    expect(Date.now() - started).toBeLessThan(15_000);
  });

  it.each<[Matcher, string, RegExp | undefined]>([
    ['regex', '(', /no regular expression/],
    ['regex', '', /empty/],
    ['json', '{', /no JSON/],
    ['contains', '', /empty/],
    ['choice', '()', /no letter or digit/],
    ['regex', 'a|b', undefined],
    ['json', '{"a": 1}', undefined],
    ['exact', ' ', undefined],
  ])('say what is wrong with what is expected: %s %j', (matcher, option, problem) => {
    if (problem === undefined) expect(expectationProblem(option, matcher)).toBeUndefined();
    else expect(expectationProblem(option, matcher)).toMatch(problem);
  });
});
