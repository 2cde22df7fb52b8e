import type { Dependencies } from './dependencies.ts';
import type { CleanedUp, CleanUpInput } from './types.ts';

/** What a release that was cancelled leaves behind. */
export function createCleanUpActivities(_dependencies: Dependencies) {
  return {
    /**
     * Removes what nobody will go on with: temporary files, unfinished uploads. What is journalled
     * stays, and is found by a later run.
     */
    async cleanUp(_input: CleanUpInput): Promise<CleanedUp> {
      return { removed: [] };
    },
  };
}
