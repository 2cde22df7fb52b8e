/**
 * `output = round(input + scale * (left * right))` over a band of rows: `quad-f32.ts` works out
 * 16-bit results, `quad-f64.ts` f32 ones. In both k ascends from zero and nothing is fused, so a
 * result depends neither on the tiling nor on the processor.
 */
import { mergeQuadF32 } from './quad-f32';
import { mergeQuadF64 } from './quad-f64';
import { TILE_COLS, TILE_ROWS } from './tile';

/** Packed right factor per column block: half of a small L2 cache, to be read for every quad. */
const BLOCK_BYTES: i32 = 256 * 1024;

/** Ragged tiles are computed here; the widest element takes four bytes. */
const scratchInput = memory.data(128, 16);
const scratchOutput = memory.data(128, 16);

/** @returns how many stored results are Inf or NaN */
export function mergeBand<In, Out>(
  input: usize,
  output: usize,
  left: usize,
  right: usize,
  rows: i32,
  cols: i32,
  rank: i32,
  scale: f64,
): i32 {
  const panelBytes = <usize>rank * TILE_COLS * 4;
  const blockPanels = max(1, BLOCK_BYTES / <i32>panelBytes);
  const fullPanels = cols / TILE_COLS;
  const raggedCols = cols % TILE_COLS;
  let nonFinite = 0;
  for (let panel = 0; panel < fullPanels || panel == 0; panel += blockPanels) {
    const panels = min(blockPanels, fullPanels - panel);
    const isLastBlock = panel + panels == fullPanels;
    for (let row = 0; row < rows; row += TILE_ROWS) {
      const quadRows = min(TILE_ROWS, rows - row);
      const quadLeft = left + <usize>row * rank * 4;
      const blockRight = right + <usize>panel * panelBytes;
      const offset = <usize>row * cols + <usize>panel * TILE_COLS;
      const from = input + offset * sizeof<In>();
      const to = output + offset * sizeof<Out>();
      nonFinite +=
        quadRows == TILE_ROWS
          ? mergeQuad<In, Out>(from, to, cols, cols, quadLeft, blockRight, rank, panels, scale)
          : mergeRaggedRows<In, Out>(
              from, to, cols, quadLeft, blockRight, rank, panels, scale, quadRows,
            );
      if (!isLastBlock || raggedCols == 0) continue;
      nonFinite += mergeRaggedTile<In, Out>(
        from + <usize>panels * TILE_COLS * sizeof<In>(),
        to + <usize>panels * TILE_COLS * sizeof<Out>(),
        cols, quadLeft, blockRight + <usize>panels * panelBytes, rank, scale, quadRows, raggedCols,
      );
    }
  }
  return nonFinite;
}

/** Fewer than four rows of `panels` whole panels. */
function mergeRaggedRows<In, Out>(
  input: usize,
  output: usize,
  cols: usize,
  left: usize,
  right: usize,
  rank: i32,
  panels: i32,
  scale: f64,
  tileRows: i32,
): i32 {
  let nonFinite = 0;
  for (let panel = 0; panel < panels; panel++) {
    nonFinite += mergeRaggedTile<In, Out>(
      input, output, cols, left, right, rank, scale, tileRows, TILE_COLS,
    );
    input += TILE_COLS * sizeof<In>();
    output += TILE_COLS * sizeof<Out>();
    right += <usize>rank * TILE_COLS * 4;
  }
  return nonFinite;
}

/** A tile with rows or columns missing, by way of a whole tile in scratch memory. */
function mergeRaggedTile<In, Out>(
  input: usize,
  output: usize,
  cols: usize,
  left: usize,
  right: usize,
  rank: i32,
  scale: f64,
  tileRows: i32,
  tileCols: i32,
): i32 {
  memory.fill(scratchInput, 0, TILE_ROWS * TILE_COLS * sizeof<In>());
  for (let row = 0; row < tileRows; row++) {
    const to = scratchInput + <usize>row * TILE_COLS * sizeof<In>();
    memory.copy(to, input + <usize>row * cols * sizeof<In>(), <usize>tileCols * sizeof<In>());
  }
  const nonFinite = mergeQuad<In, Out>(
    scratchInput, scratchOutput, TILE_COLS, TILE_COLS,
    left, right, rank, 1, scale, tileRows, tileCols,
  );
  for (let row = 0; row < tileRows; row++) {
    const from = scratchOutput + <usize>row * TILE_COLS * sizeof<Out>();
    memory.copy(output + <usize>row * cols * sizeof<Out>(), from, <usize>tileCols * sizeof<Out>());
  }
  return nonFinite;
}

// @ts-ignore: decorator
@inline
function mergeQuad<In, Out>(
  input: usize,
  output: usize,
  inputCols: usize,
  outputCols: usize,
  left: usize,
  right: usize,
  rank: i32,
  panels: i32,
  scale: f64,
  tileRows: i32 = TILE_ROWS,
  tileCols: i32 = TILE_COLS,
): i32 {
  if (isFloat<Out>()) {
    return mergeQuadF64<In>(
      input, output, inputCols, outputCols, left, right, rank, panels, scale, tileRows, tileCols,
    );
  }
  return mergeQuadF32<In, Out>(
    input, output, inputCols, outputCols,
    left, right, rank, panels, <f32>scale, tileRows, tileCols,
  );
}
