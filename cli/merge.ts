import { resolve } from 'node:path';
import { mergeModel } from '../engine/merge/merge-model.ts';
import { verifyMerge } from '../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes, formatDuration } from './format.ts';
import { Interrupted, interruptionSignal } from './interruption.ts';
import { type MergeArguments, parseMergeArguments, prepareMerge } from './merge-inputs.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

export interface MergeCommand extends MergeArguments {
  readonly output: string;
}

/** `weldline merge`: the merge of a release, in this process, without a server. */
export async function runMerge(options: MergeCommand, output: Output): Promise<number> {
  const signal = interruptionSignal();
  const progress = new Progress();
  const startedAt = performance.now();
  try {
    const prepared = await prepareMerge(parseMergeArguments(options), { progress, signal });
    const { roots, streamed, resources, names } = prepared;
    const plan = await prepared.plan();
    progress.clear();
    for (const warning of plan.warnings) output.warn(warning);
    const target = resolve(options.output);
    const { manifest, existed } = await mergeModel({
      plan,
      roots,
      streamed,
      output: target,
      resources,
      provenance: { inputs: names },
      signal,
      onProgress: ({ tensor, bytesDone, bytesTotal }) =>
        progress.update({ label: 'merging', item: tensor, bytesDone, bytesTotal }),
    });
    if (existed) {
      // A manifest says what was made; only its digests say that it is still so.
      await verifyMerge({ directory: target, files: await openModelDirectory(target), signal });
    }
    progress.clear();
    const ms = performance.now() - startedAt;
    const bytes = manifest.files.reduce((sum, file) => sum + file.size, 0);
    output.line(
      existed
        ? `${target} holds this merge already; its files are intact.`
        : `Merged ${manifest.tensors.merged} of ${manifest.tensors.total} tensors into ${target} ` +
            `(${formatBytes(bytes)}, ${formatDuration(ms)}).`,
    );
    output.result({
      output: target,
      existed,
      plan: manifest.plan,
      tensors: manifest.tensors,
      bytes,
      seconds: Math.round(ms) / 1000,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      warnings: plan.warnings,
      files: manifest.files,
    });
    return EXIT.ok;
  } catch (error) {
    progress.clear();
    if (!(signal.aborted && signal.reason instanceof Interrupted)) throw error;
    output.note('Stopped. Run the same command to go on where it stopped.');
    return EXIT.interrupted;
  }
}
