import type { Dependencies } from './dependencies.ts';
import type { Place } from './types.ts';

/** Where releases are done, and whether a host is there. */
export function createPlacementActivities({ place }: Dependencies) {
  return {
    /** The queues of this worker: a release that asks is done there. */
    async place(): Promise<Place> {
      return place;
    },

    /** Says that this host is there. */
    async answer(): Promise<void> {},
  };
}
