/** The choices of `base.merge_onto`, apart so that parsing a command line need not load the engine. */
export const MERGE_ONTO = ['original', 'dequantized', 'simulated_nf4'] as const;

/**
 * The weights as they were published; what a quantised base dequantises to: those that a QLoRA
 * adapter saw while it was trained; or of a 16-bit base, what bitsandbytes' NF4 makes of them.
 */
export type MergeOnto = (typeof MERGE_ONTO)[number];
