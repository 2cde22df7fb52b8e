import type { KernelModule } from '../../kernels/index.ts';
import type { Plan, PlannedShard } from '../plan/plan.ts';
import type { MergeResources } from './resources.ts';
import type { MergeDirectory } from './shard-file.ts';
import type { ShardSink } from './shard-sink.ts';
import type { StreamedInputs } from './streamed-input.ts';

/** How far a merge is: of one shard, or, with the bytes of all, of the whole model. */
export interface MergeProgress {
  readonly shard: string;
  /** The tensor that is being worked on; empty at the start and the end. */
  readonly tensor: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface MergeShardOptions {
  readonly plan: Plan;
  readonly planDigest: string;
  readonly shard: PlannedShard;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** Inputs whose weights are read where they are. */
  readonly streamed?: StreamedInputs | undefined;
  readonly directory: MergeDirectory;
  /** Takes shards as they are made; they are then not written to `directory`. */
  readonly sink?: ShardSink | undefined;
  readonly resources: MergeResources;
  readonly kernel: KernelModule;
  readonly onProgress?: ((progress: MergeProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export function reportProgress(options: MergeShardOptions, bytesDone: number, tensor = ''): void {
  const { shard, onProgress } = options;
  onProgress?.({ shard: shard.file, tensor, bytesDone, bytesTotal: shard.size });
}
