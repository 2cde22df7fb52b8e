import { join, resolve } from 'node:path';
import { type Reproduction, reproduceMerge } from '../audit/reproduce-merge.ts';
import { readEnvironment } from '../config/environment.ts';
import { sha256Of } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import { MEMORY_BUDGET_BYTES_DEFAULT } from '../engine/merge/resources.ts';
import { modelAccess } from '../workers/model-access.ts';
import { EXIT } from './exit-codes.ts';
import { formatDuration } from './format.ts';
import { Interrupted, interruptionSignal } from './interruption.ts';
import { threadsOption } from './merge-inputs.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

export interface ReproduceCommand {
  readonly base?: string;
  readonly output?: string;
  readonly threads?: string;
}

/** `weldline reproduce`: the merge of a release made again, and compared byte for byte. */
export async function runReproduce(
  target: string,
  options: ReproduceCommand,
  output: Output,
): Promise<number> {
  const environment = readEnvironment();
  const progress = new Progress();
  const signal = interruptionSignal();
  const startedAt = performance.now();
  let bytesRead = 0;
  // By its target, so that the same command goes on where it was stopped.
  const place = join(environment.home, 'reproductions', sha256Of(resolve(target)).slice(0, 16));
  try {
    const reproduction = await reproduceMerge({
      access: modelAccess(environment),
      target,
      base: options.base,
      output: options.output === undefined ? place : resolve(options.output),
      isKept: options.output !== undefined,
      threads: threadsOption(options.threads) ?? environment.threads,
      memoryBudgetBytes: environment.memoryBudgetBytes ?? MEMORY_BUDGET_BYTES_DEFAULT,
      signal,
      onFetch: ({ file, ...bytes }) => progress.update({ label: 'fetching', item: file, ...bytes }),
      onBytes: (count) => {
        bytesRead += count;
        progress.update({ label: 'reading', item: '', bytesDone: bytesRead, bytesTotal: 0 });
      },
      onMerge: ({ tensor, bytesDone, bytesTotal }) =>
        progress.update({ label: 'merging', item: tensor, bytesDone, bytesTotal }),
    });
    progress.clear();
    return report(reproduction, performance.now() - startedAt, output);
  } catch (error) {
    progress.clear();
    if (!(signal.aborted && signal.reason instanceof Interrupted)) throw error;
    output.note('Stopped. Run the same command to go on where it stopped.');
    return EXIT.interrupted;
  }
}

function report(reproduction: Reproduction, ms: number, output: Output): number {
  const { target, plan, conversion } = reproduction;
  const files = reproduction.files.map((file) => ({
    ...file,
    isEqual: file.found === file.sha256,
  }));
  for (const { path, isEqual, sha256 } of files) {
    const wanted = sha256 === '' ? 'not in the manifest'.padEnd(64) : sha256;
    output.line(`${isEqual ? 'equal' : 'DIFFERS'}  ${wanted}  ${path}`);
  }
  if (conversion !== undefined) {
    output.line(
      `\nThese are the files of the merge that ${conversion} was made of; conversions are not made ` +
        'again.',
    );
  }
  const differing = files.filter(({ isEqual }) => !isEqual).map(({ path }) => path);
  const seconds = Math.round(ms) / 1000;
  const isReproduced = differing.length === 0;
  output.result({ target, plan, isReproduced, ...(conversion && { conversion }), seconds, files });
  if (isReproduced) {
    output.line(`\n${target} is reproduced byte for byte (${formatDuration(ms)}).`);
    output.line('These are the files of its manifest; weldline verify says whether it holds them.');
    return EXIT.ok;
  }
  if (output.json) return EXIT.failed;
  return output.error(
    new WeldlineError(
      'verify.digest-mismatch',
      `${target} was made again, and these files came out otherwise: ${differing.join(', ')}. ` +
        'Verify the release; if it is intact, this is a bug in weldline.',
    ),
  );
}
