import { expect, it } from 'vitest';
import { childVariables, readEnvironment } from '../../config/environment.ts';

const GITHUB = {
  ACTIONS_ID_TOKEN_REQUEST_URL: 'https://actions.test/token?api-version=2.0',
  ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'bearer',
};

it('is that of the token that is set, before that of GitHub Actions', () => {
  const variables = { ...GITHUB, SIGSTORE_ID_TOKEN: 'a.b.c' };
  const identity = readEnvironment(variables).identity;
  expect(identity !== undefined && 'token' in identity && identity.token.reveal()).toBe('a.b.c');
});

it('is where GitHub Actions gives tokens to a job that may have them', () => {
  const identity = readEnvironment(GITHUB).identity;
  expect(identity).toMatchObject({ requestUrl: GITHUB.ACTIONS_ID_TOKEN_REQUEST_URL });
  expect(JSON.stringify(identity)).not.toContain('bearer');
  const { ACTIONS_ID_TOKEN_REQUEST_TOKEN: _, ...mayNot } = GITHUB;
  expect(readEnvironment(mayNot).identity).toBeUndefined();
});

it('is none of what programs inherit', () => {
  expect(childVariables({}, { ...GITHUB, SIGSTORE_ID_TOKEN: 'a.b.c', PATH: '/bin' })).toEqual({
    PATH: '/bin',
  });
});
