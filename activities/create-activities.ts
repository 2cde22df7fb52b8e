import { createCleanUpActivities } from './clean-up-activities.ts';
import type { Dependencies } from './dependencies.ts';
import { createInputActivities } from './input-activities.ts';
import { createMergeActivities } from './merge-activities.ts';
import { createNightActivities } from './night-activities.ts';
import { observeActivity } from './observe-activity.ts';
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

/** Binds the activities to what they need; each is logged and counted, and fails as Temporal knows it. */
export function createActivities(dependencies: Dependencies): Activities {
  return observed({
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

function observed<T extends Record<keyof T, AnyActivity>>(activities: T): T {
  const entries = Object.entries<AnyActivity>(activities);
  return Object.fromEntries(
    entries.map(([name, activity]) => [name, observeActivity(activity)]),
  ) as T;
}
