import { createCipheriv } from 'node:crypto';

/** `length` bytes that look random and are the same on every machine. */
export function testBytes(length: number, seed = 0): Buffer {
  const key = Buffer.alloc(16, seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}
