/**
 * A process of its own that uses the embedded server: prints one line of JSON per event and
 * releases when a line arrives on standard input. Arguments: home, path of the CLI, its version.
 */
import { once } from 'node:events';
import { acquireEmbeddedServer } from '../../workers/embedded-server.ts';

const [home = '', path = '', version = ''] = process.argv.slice(2);
const print = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`);

const server = await acquireEmbeddedServer({
  home,
  cli: { path, version },
  ui: false,
  onRestart: ({ pid }) => print({ restarted: pid }),
  onLost: (error) => print({ lost: String(error) }),
});
print({ address: server.address });
await once(process.stdin, 'data');
await server.release();
print({ released: true });
process.exit(0);
