/** The register tile, and the panels of the packed factors; `kernels/arena.ts` holds the same. */
export const TILE_ROWS: i32 = 4;
export const TILE_COLS: i32 = 8;
