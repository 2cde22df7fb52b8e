import { formatBytes } from './format.ts';
import type { Output } from './output.ts';

/** The last line of pruning. */
export function tellBytes(bytes: number, isDryRun: boolean, output: Output): void {
  if (!isDryRun) output.line(`${formatBytes(bytes)} freed.`);
  else if (bytes === 0) output.line('There is nothing to prune.');
  else output.line(`${formatBytes(bytes)} would be freed; nothing was removed. Do it with --yes.`);
}
