import { expect, it } from 'vitest';
import { hubCacheDirectory, hubEndpoint, hubTokenPath } from '../../sources/hub-environment.ts';

const HOME = '/home/ada';

it.each([
  [{}, '/home/ada/.cache/huggingface/hub'],
  [{ XDG_CACHE_HOME: '/cache' }, '/cache/huggingface/hub'],
  [{ HF_HOME: '~/hf' }, '/home/ada/hf/hub'],
  [{ HF_HOME: '$DATA/hf', DATA: '/data' }, '/data/hf/hub'],
  [{ HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
  [
    { HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '$DATA/new', DATA: '/d' },
    '/d/new',
  ],
  [{ HF_HUB_CACHE: '$ABSENT/x' }, '$ABSENT/x'],
])('finds the cache for %j', (environment, directory) => {
  expect(hubCacheDirectory(environment, HOME)).toBe(directory);
});

it('finds the token file of `hf auth login`', () => {
  expect(hubTokenPath({}, HOME)).toBe('/home/ada/.cache/huggingface/token');
  expect(hubTokenPath({ HF_HOME: '/hf' }, HOME)).toBe('/hf/token');
  expect(hubTokenPath({ HF_TOKEN_PATH: '~/token' }, HOME)).toBe('/home/ada/token');
});

it('takes the endpoint without its last slash', () => {
  expect(hubEndpoint({})).toBe('https://huggingface.co');
  expect(hubEndpoint({ HF_ENDPOINT: '' })).toBe('https://huggingface.co');
  expect(hubEndpoint({ HF_ENDPOINT: 'http://127.0.0.1:8080/' })).toBe('http://127.0.0.1:8080');
});

it('expands names in braces', () => {
  const named = ['$', '{DATA}/hub'].join('');
  expect(hubCacheDirectory({ HF_HUB_CACHE: named, DATA: '/d' }, HOME)).toBe('/d/hub');
});
