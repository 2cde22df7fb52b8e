/**
 * Serves a directory tree as a hub: `node test/hub-server/main.ts --root DIR [--port N]`, then
 * `HF_ENDPOINT=http://127.0.0.1:N`. How the tree must look is told in `catalog.ts`.
 */
import { parseArgs } from 'node:util';
import { startHubServer } from './hub-server.ts';

const { values } = parseArgs({
  options: { root: { type: 'string' }, port: { type: 'string', default: '0' } },
});
if (values.root === undefined) {
  console.error('Usage: node test/hub-server/main.ts --root DIR [--port N]');
  process.exit(2);
}
const server = await startHubServer({ root: values.root, port: Number(values.port) });
console.log(server.endpoint);
