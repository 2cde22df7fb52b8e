import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { compileCacheUrl } from './test/compile-threads.ts';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/compile-threads.ts',
    env: { NODE_COMPILE_CACHE: fileURLToPath(compileCacheUrl) },
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
