import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { compileCacheUrl } from './test/compile-threads.ts';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/compile-threads.ts',
    env: { NODE_COMPILE_CACHE: fileURLToPath(compileCacheUrl) },
    pool: 'forks',
    // A test waits for conditions; on a busy machine that may take long, and only a hang takes this long.
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
});
