/** Builds the published package into dist/: compiled sources, the kernels, the workflow bundle. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DefaultLogger } from '@temporalio/worker';
import { buildWorkflowBundle, prebuiltBundle } from '../workers/workflow-bundle.ts';

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
// Without it, which takes `npm run build:native`, the package uses WebAssembly everywhere.
const addon = 'kernels/native/merge-linux-x64.node';
if (existsSync(at(addon))) {
  mkdirSync(at('dist/kernels/native'), { recursive: true });
  copyFileSync(at(addon), at(`dist/${addon}`));
}
// What is no TypeScript: programs in Python, and the locks of what is installed.
for (const folder of ['tools/python', 'tools/llama-cpp-packages']) {
  cpSync(at(folder), at(`dist/${folder}`), {
    recursive: true,
    filter: (path) => !/\.ts$|__pycache__/.test(path),
  });
}
for (const traced of [false, true]) {
  for (const encodesFailures of [false, true]) {
    const options = { traced, encodesFailures };
    const bundle = await buildWorkflowBundle('index.ts', new DefaultLogger('WARN'), options);
    writeFileSync(at(`dist/workflows/${basename(prebuiltBundle(options))}`), bundle);
  }
}
