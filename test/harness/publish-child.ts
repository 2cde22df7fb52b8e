/**
 * Publishes in a process of its own, which kills itself as `kill -9` would when the file named last
 * is at hand, or goes on to the end without one.
 *
 *     node publish-child.ts TARGET ARTEFACT [FILE]
 *
 * TARGET is a target of a recipe, ARTEFACT the artefact, both as JSON. Prints what `publish` returned.
 */
import { readEnvironment } from '../../config/environment.ts';
import type { PublishTarget } from '../../config/publish-schema.ts';
import { createPublisher } from '../../publishers/create-publisher.ts';
import type { Artefact } from '../../publishers/publisher.ts';

const [target, artefact, file] = process.argv.slice(2);
if (target === undefined || artefact === undefined) {
  throw new Error('usage: publish-child.ts TARGET ARTEFACT [FILE]');
}
const publisher = await createPublisher(JSON.parse(target) as PublishTarget, readEnvironment());
const published = await publisher.publish(JSON.parse(artefact) as Artefact, {
  signal: new AbortController().signal,
  onProgress: ({ item }) => {
    if (item === file) process.kill(process.pid, 'SIGKILL');
  },
  publishedAt: [],
});
process.stdout.write(JSON.stringify(published));
