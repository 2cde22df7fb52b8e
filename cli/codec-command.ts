import type { CodecCommand } from './codec.ts';
import type { CommandSpec } from './command-spec.ts';

export const CODEC: CommandSpec<[CodecCommand]> = {
  usage: 'codec',
  description: "let Temporal's UI on this machine show what is encrypted, until stopped",
  examples: [
    'WELDLINE_PAYLOAD_KEYS=~/keys weldline codec --origin http://localhost:8080',
    'weldline codec --origin https://cloud.temporal.io --port 8234',
  ],
  options: (command) =>
    command
      .requiredOption('--origin <url>', 'of the UI, whose pages alone may ask')
      .option('--port <number>', 'on the loopback interface (default: 8234)'),
  run: async (output, options) => (await import('./codec.ts')).runCodec(options, output),
};
