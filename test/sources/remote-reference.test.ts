import { describe, expect, it } from 'vitest';
import { parseModelReference } from '../../sources/reference.ts';

const parse = (text: string) => parseModelReference(text, '/recipes');
const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('references to other places', () => {
  it.each([
    ['s3://models/llama/v1/', 's3', 's3://models/llama/v1'],
    ['s3://models', 's3', 's3://models'],
    [
      'oci://Registry.example.com:5000/team/llama:v1',
      'oci',
      'oci://registry.example.com:5000/team/llama:v1',
    ],
    [`oci://localhost:5000/llama@${DIGEST}`, 'oci', `oci://localhost:5000/llama@${DIGEST}`],
    [`oci://localhost/llama:v1@${DIGEST}`, 'oci', `oci://localhost/llama@${DIGEST}`],
    ['https://Example.com/models/llama/', 'http', 'https://example.com/models/llama'],
    ['https://example.com/', 'http', 'https://example.com'],
    ['http://127.0.0.1:8080/llama', 'http', 'http://127.0.0.1:8080/llama'],
    ['http://[::1]:8080/llama', 'http', 'http://[::1]:8080/llama'],
    ['http://10.1.2.3/llama', 'http', 'http://10.1.2.3/llama'],
    ['http://minio:9000/llama', 'http', 'http://minio:9000/llama'],
    ['http://models.internal/llama', 'http', 'http://models.internal/llama'],
  ])('reads %s', (text, source, uri) => {
    expect(parse(text)).toEqual({ kind: 'remote', source, uri });
  });

  it.each([
    ['s3://', 'bucket'],
    ['s3://Bucket/x', 'bucket'],
    ['s3://bucket//x', 'empty steps'],
    ['s3://bucket/../x', '".."'],
    ['oci://registry', 'no repository'],
    ['oci://registry/Team/llama:v1', 'no repository'],
    ['oci://registry/llama', 'tag or a digest'],
    ['oci://registry/llama@sha256:12', 'not one'],
    ['http://example.com/llama', 'https://'],
    ['http://8.8.8.8/llama', 'https://'],
    ['http://127.0.0.1.example.com/llama', 'https://'],
    ['https://example.com/a%2F..%2Fb', '".."'],
    ['https://example.com/a//b', 'empty steps'],
    ['https://example.com/a b', 'blanks'],
    ['https://huggingface.co/org/name', 'hf://org/name'],
  ])('refuses %s', (text, why) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({
        code: 'source.invalid-reference',
        message: expect.stringContaining(why),
      }),
    );
  });

  it.each([
    'https://user:canary@example.com/llama',
    'https://canary@example.com/llama',
    's3://key:canary@bucket/x',
    'oci://user:canary@registry/llama:v1',
    'https://example.com/llama?X-Amz-Signature=canary',
    'https://example.com/llama#canary',
  ])('refuses %s without repeating the secret', (text) => {
    let message = '';
    try {
      parse(text);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toContain('does not name a model');
    expect(message).not.toContain('canary');
  });
});
