/** Converts as a worker does, to be killed: the options are the JSON of the first argument. */
import { childVariables } from '../../../config/environment.ts';
import { convertToIntegers } from '../../../conversion/integer/convert-to-integers.ts';

const options = JSON.parse(process.argv[2] ?? '');
await convertToIntegers({
  ...options,
  tools: { ...options.tools, variables: childVariables() },
  onProgress: ({ stage }) => process.stdout.write(`${stage}\n`),
});
