import { describe, expect, it } from 'vitest';
import { targetOfLocation } from '../../publishers/target-of-location.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('the target of a location', () => {
  it.each([
    ['/srv/models/merged-x', { directory: { path: '/srv/models' } }, 'merged-x'],
    ['/merged-x/', { directory: { path: '/' } }, 'merged-x'],
    ['s3://bucket/merged-x', { s3: { bucket: 'bucket' } }, 'merged-x'],
    ['s3://bucket/a/b/merged-x/', { s3: { bucket: 'bucket', prefix: 'a/b' } }, 'merged-x'],
    ['oci://127.0.0.1:5000/a/b:1.0', { oci: { repository: '127.0.0.1:5000/a/b' } }, '1.0'],
    [
      `oci://registry.example.com/a@${DIGEST}`,
      { oci: { repository: 'registry.example.com/a' } },
      DIGEST,
    ],
    ['hf://org/name@merged-x', { hub: { repo: 'org/name' } }, 'merged-x'],
    ['hf://org/name-gguf-q4_k_m@merged-x', { hub: { repo: 'org/name' } }, 'merged-x'],
    ['hf://org/name@a%2Fb', { hub: { repo: 'org/name' } }, 'a/b'],
  ])('%s', (location, target, name) => {
    expect(targetOfLocation(location)).toEqual({ target, name });
  });

  it.each([
    ...['', '/', 'merged-x', './merged-x', 's3://', 's3://bucket', 's3://bucket/', 's3://b//x'],
    ...[
      's3://bucket/x?versionId=1',
      'oci://registry:5000',
      'oci://registry/a',
      'oci://registry/a:',
    ],
    ...[
      'oci://registry/a@sha256:12',
      'oci://user:word@registry/a:1',
      'hf://org/name',
      'hf://name@x',
    ],
    ...['hf://org/name@%', 'hf://org/name@x y', 'https://example.com/x', 'ollama://x:1', 'x://'],
  ])('refuses %j', (location) => {
    expect(targetOfLocation(location)).toBeUndefined();
  });
});
