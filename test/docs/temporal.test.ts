import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ERROR_CODES } from '../../engine/errors.ts';

const TEXT = readFileSync(new URL('../../docs/temporal.md', import.meta.url), 'utf8');

it('names codes of errors that there are, and all that connecting ends with', () => {
  const named = [...TEXT.matchAll(/`((?:temporal|payload|config)\.[a-z-]+)`/g)].map(
    ([, code]) => code,
  );
  const codes: readonly string[] = ERROR_CODES;
  expect(named.filter((code) => code !== undefined && !codes.includes(code))).toEqual([]);
  for (const code of codes.filter((each) =>
    /^(temporal\.un|temporal\.name|payload\.)/.test(each),
  )) {
    expect(named).toContain(code);
  }
});
