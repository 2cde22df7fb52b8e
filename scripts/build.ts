/** Builds the published package into dist/: compiled sources, the kernel, the workflow bundle. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DefaultLogger } from '@temporalio/worker';
import { buildWorkflowBundle } from '../workers/workflow-bundle.ts';

const root = new URL('../', import.meta.url);
const at = (path: string): string => fileURLToPath(new URL(path, root));
const npm = (...args: string[]): void => {
  execFileSync('npm', args, {
    cwd: at('.'),
    stdio: 'inherit',
    shell: process.platform === 'win32',
  });
};

rmSync(at('dist'), { recursive: true, force: true });
npm('run', '--silent', 'build:kernel');
npm('exec', '--', 'tsc', '-p', 'tsconfig.build.json');
copyFileSync(at('kernels/merge.wasm'), at('dist/kernels/merge.wasm'));
const bundle = await buildWorkflowBundle('index.ts', new DefaultLogger('WARN'));
writeFileSync(at('dist/workflows/workflow-bundle.js'), bundle);
