/**
 * Does one thing to a directory of artefacts in a process that ends by `kill -9` before the n-th change
 * of the file system; says how many changes there were if it comes to the end.
 *
 *     node directory-child.ts DIRECTORY ACTION CHANGES
 *
 * ACTION is JSON: `[method of the publisher, arguments]`.
 */
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [directory = '', action = '[]', before = '0'] = process.argv.slice(2);
const CHANGES = ['copyFile', 'link', 'mkdir', 'open', 'rename', 'rm', 'symlink'] as const;
let changes = 0;
for (const name of CHANGES) {
  const original = fs[name] as (...args: unknown[]) => Promise<unknown>;
  const counted = (...args: unknown[]) => {
    if (name === 'open' && args[1] !== 'w') return original(...args);
    changes += 1;
    if (changes === Number(before)) process.kill(process.pid, 'SIGKILL');
    return original(...args);
  };
  Object.assign(fs, { [name]: counted });
}
syncBuiltinESMExports();

const { DirectoryPublisher } = await import('../../publishers/directory/directory-publisher.ts');
const publisher = new DirectoryPublisher(directory);
const [method, ...args] = JSON.parse(action) as [keyof DirectoryPublisherMethods, ...unknown[]];
type DirectoryPublisherMethods = InstanceType<typeof DirectoryPublisher>;
const signal = new AbortController().signal;
const options = { signal, onProgress: () => undefined, publishedAt: [], isDryRun: false };
await (publisher[method] as (...given: unknown[]) => Promise<unknown>)(...args, options);
process.stdout.write(String(changes));
