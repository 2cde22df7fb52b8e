import { Context } from '@temporalio/activity';
import { createCleanUpActivities } from './clean-up-activities.ts';
import type { Dependencies } from './dependencies.ts';
import { toFailure } from './failures.ts';
import { createInputActivities } from './input-activities.ts';
import { createMergeActivities } from './merge-activities.ts';
import { createNightActivities } from './night-activities.ts';
import { createPlacementActivities } from './placement-activities.ts';
import { createQualityPlanning } from './planning-activities.ts';
import { createPublishActivities } from './publish-activities.ts';
import { createQualityActivities } from './quality-activities.ts';
import { createReleaseActivities } from './release-activities.ts';

/** All activities, by the names workflows call them. */
export type Activities = ReturnType<typeof createPlacementActivities> &
  ReturnType<typeof createInputActivities> &
  ReturnType<typeof createMergeActivities> &
  ReturnType<typeof createQualityPlanning> &
  ReturnType<typeof createQualityActivities> &
  ReturnType<typeof createPublishActivities> &
  ReturnType<typeof createReleaseActivities> &
  ReturnType<typeof createCleanUpActivities> &
  ReturnType<typeof createNightActivities>;

/** Binds the activities to what they need; every error leaves them as a Temporal failure. */
export function createActivities(dependencies: Dependencies): Activities {
  return withFailures({
    ...createPlacementActivities(dependencies),
    ...createInputActivities(dependencies),
    ...createMergeActivities(dependencies),
    ...createQualityPlanning(dependencies),
    ...createQualityActivities(dependencies),
    ...createPublishActivities(dependencies),
    ...createReleaseActivities(dependencies),
    ...createCleanUpActivities(dependencies),
    ...createNightActivities(dependencies),
  });
}

type AnyActivity = (...input: never[]) => Promise<unknown>;

function withFailures<T extends Record<keyof T, AnyActivity>>(activities: T): T {
  const wrap = (activity: AnyActivity): AnyActivity => {
    return async (...input) => {
      try {
        return await activity(...input);
      } catch (error) {
        throw toFailure(error, Context.current().info.attempt);
      }
    };
  };
  const entries = Object.entries<AnyActivity>(activities);
  return Object.fromEntries(entries.map(([name, activity]) => [name, wrap(activity)])) as T;
}
