import { resolve } from 'node:path';
import { verifyMerge } from '../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes } from './format.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

/** `weldline verify`: a merged checkpoint against its manifest. */
export async function runVerify(directory: string, output: Output): Promise<number> {
  const target = resolve(directory);
  const progress = new Progress();
  let bytesDone = 0;
  const verification = await verifyMerge({
    directory: target,
    files: await openModelDirectory(target),
    signal: interruptionSignal(),
    onBytes: (count) => {
      bytesDone += count;
      progress.update({ label: 'verifying', item: '', bytesDone, bytesTotal: 0 });
    },
  });
  progress.clear();
  const { filesChecked, bytesChecked, tensorsChecked } = verification;
  output.line(
    `${target} is intact: ${filesChecked} files (${formatBytes(bytesChecked)}) equal their ` +
      `digests, ${tensorsChecked} tensors.`,
  );
  output.result({ directory: target, ...verification });
  return EXIT.ok;
}
