import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CONVERSION_FILE } from '../conversion/conversion-store.ts';
import { verifyConversion } from '../conversion/verify-conversion.ts';
import { verifyMerge } from '../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes } from './format.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

/** `weldline verify`: a merged checkpoint, or what was made of one, against its manifest. */
export async function runVerify(directory: string, output: Output): Promise<number> {
  const target = resolve(directory);
  const progress = new Progress();
  let bytesDone = 0;
  const reading = {
    signal: interruptionSignal(),
    onBytes: (count: number) => {
      bytesDone += count;
      progress.update({ label: 'verifying', item: '', bytesDone, bytesTotal: 0 });
    },
  };
  if (existsSync(join(target, CONVERSION_FILE))) {
    const conversion = await verifyConversion(target, reading);
    progress.clear();
    const { id, filesChecked, bytesChecked } = conversion;
    const bytes = formatBytes(bytesChecked);
    output.line(
      `${target} is intact: ${id}, ${filesChecked} file(s) (${bytes}) equal their digests.`,
    );
    output.result({ directory: target, ...conversion });
    return EXIT.ok;
  }
  const verification = await verifyMerge({
    directory: target,
    files: await openModelDirectory(target),
    ...reading,
  });
  progress.clear();
  const { filesChecked, bytesChecked, tensorsChecked } = verification;
  output.line(
    `${target} is intact: ${filesChecked} file(s) (${formatBytes(bytesChecked)}) equal their ` +
      `digests, ${tensorsChecked} tensors.`,
  );
  output.result({ directory: target, ...verification });
  return EXIT.ok;
}
