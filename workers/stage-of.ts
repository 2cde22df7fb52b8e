/** Activities that are not named as the stage they belong to. */
const STAGE_OF_ACTIVITY: Readonly<Record<string, string>> = {
  resolveInputs: 'resolve',
  fetchInput: 'fetch',
  planQuality: 'preflight',
  mergeShard: 'merge',
  judge: 'gate',
  moveAliases: 'publish',
};

/** The stage of an activity, for logs and traces; of what belongs to none, its own name. */
export function stageOf(activity: string): string {
  return STAGE_OF_ACTIVITY[activity] ?? activity;
}
