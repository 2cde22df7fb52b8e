/**
 * A process of its own that counts in a file under the lock. Arguments: directory, how often, and
 * `die` to be killed while it holds the lock.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { withProcessLock } from '../../workers/process-lock.ts';

const [directory = '', times = '0', end] = process.argv.slice(2);
const counter = join(directory, 'counter');
for (let i = 0; i < Number(times); i++) {
  await withProcessLock(join(directory, 'lock'), { timeoutMs: 60_000 }, async () => {
    const count = Number(await readFile(counter, 'utf8'));
    await writeFile(counter, String(count + 1));
    if (end === 'die' && i === Number(times) - 1) process.kill(process.pid, 'SIGKILL');
  });
}
