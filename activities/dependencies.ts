import type { SigningEnvironment } from '../attest/signer.ts';
import type { Environment } from '../config/environment.ts';
import type { PublishEnvironment } from '../publishers/create-publisher.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import type { MemorySlots } from './memory-slots.ts';
import type { Place } from './types.ts';

/** What activities need of the world; made once by the composition root (`workers/main.ts`). */
export interface Dependencies {
  /** weldline's home: the workspace is below it. */
  readonly home: string;
  readonly access: ModelAccess;
  /** Threads of one merge, where the recipe does not say; undefined leaves it to the merge. */
  readonly threads?: number | undefined;
  /** Of one merge, where the recipe does not say; undefined leaves it to the merge. */
  readonly memoryBudgetBytes?: number | undefined;
  /** Where tools are looked for, how long they may be silent, and the key of an endpoint. */
  readonly tools: Pick<
    Environment,
    'toolsDirectory' | 'python' | 'llamaCpp' | 'endpointKey' | 'stallTimeoutMs'
  >;
  /** Where a release that asks this worker is done. */
  readonly place: Place;
  /** How targets are reached. */
  readonly publishing: PublishEnvironment;
  /** Who signs. */
  readonly identity: SigningEnvironment;
  /** Keeps conversions and evaluations from filling the machine's memory together. */
  readonly memory: MemorySlots;
}
