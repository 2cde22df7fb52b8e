/** The read port lives in the engine, which may not import from here; sources implement it. */
export type { ByteSource } from '../engine/byte-source.ts';
