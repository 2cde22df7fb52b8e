/** Workflows and all activities that have no queue of their own. */
export const TASK_QUEUE = 'weldline';

/** Merges: one at a time per worker, because each uses all the threads and the whole budget. */
export const MERGE_TASK_QUEUE = 'weldline-merge';

/** Conversions: one at a time per worker, because programs that convert take all they can get. */
export const CONVERT_TASK_QUEUE = 'weldline-convert';

/** Evaluations: likewise, beside conversions where both fit into memory. */
export const EVALUATE_TASK_QUEUE = 'weldline-evaluate';
