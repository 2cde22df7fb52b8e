/**
 * Where AWQ puts the values of eight neighbouring outputs in a word of 32 bits, in steps of 4 bits:
 * in the order 0, 2, 4, 6, 1, 3, 5, 7 (AutoAWQ's `AWQ_ORDER`).
 */
export const AWQ_PLACES: readonly number[] = [0, 4, 1, 5, 2, 6, 3, 7];
