import type { ModelAccess } from '../sources/model-input.ts';

/** What activities need of the world; made once by the composition root (`workers/main.ts`). */
export interface Dependencies {
  /** weldline's home: the workspace is below it. */
  readonly home: string;
  readonly access: ModelAccess;
  /** Threads of one merge, where the recipe does not say; undefined leaves it to the merge. */
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes: number;
}
