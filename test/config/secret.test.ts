import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { Secret } from '../../config/secret.ts';

describe('Secret', () => {
  const secret = new Secret('swordfish');

  it('is revealed only when asked', () => {
    expect(secret.reveal()).toBe('swordfish');
  });

  it.each([
    ['a template', `${secret}`],
    ['JSON', JSON.stringify({ secret })],
    ['inspect', inspect({ secret }, { showHidden: true, depth: 9 })],
    ['a copy', inspect({ ...secret }, { showHidden: true })],
    ['its keys', Reflect.ownKeys(secret).join()],
    ['a concatenation', `token ${String(secret)}`],
  ])('does not show in %s', (_, shown) => {
    expect(shown).not.toContain('swordfish');
  });
});
