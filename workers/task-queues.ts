/** Workflows and all activities but merges. */
export const TASK_QUEUE = 'weldline';

/** Merges: one at a time per worker, because each uses all the threads and the whole budget. */
export const MERGE_TASK_QUEUE = 'weldline-merge';
