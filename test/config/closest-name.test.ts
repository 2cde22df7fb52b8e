import { describe, expect, it } from 'vitest';
import { closestName } from '../../config/closest-name.ts';

const keys = ['dtype', 'max_shard_size', 'threads', 'memory_budget'];

describe('closestName', () => {
  it.each([
    ['maxShardSize', 'max_shard_size'],
    ['max-shard-size', 'max_shard_size'],
    ['shard_size', 'max_shard_size'],
    ['d_type', 'dtype'],
    ['thread', 'threads'],
    ['memory_budjet', 'memory_budget'],
  ])('finds for %j the key %j', (name, closest) => {
    expect(closestName(name, keys)).toBe(closest);
  });

  it.each(['', 'x', 'foo', 'compression', 'q'.repeat(10_000)])('finds nothing for %j', (name) => {
    expect(closestName(name, keys)).toBeUndefined();
  });
});
