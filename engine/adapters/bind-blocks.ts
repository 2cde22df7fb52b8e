import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';
import type { BoundDelta } from './bind-adapter.ts';
import { bindExperts } from './bind-experts.ts';
import type { Block, BlockNames } from './block-names.ts';
import { checkBlocks } from './check-blocks.ts';
import type { LoraPair } from './lora-pair.ts';

/** What binding has at hand. */
export interface BlockBinding {
  readonly adapter: Adapter;
  readonly checkpoint: Checkpoint;
  readonly names: BlockNames;
  /** From a name in the adapter to the one on disk, which need not be there as a whole. */
  readonly toDisk: (tensor: string) => string;
}

/** A delta for a block of a tensor's rows, or a piece of a pair for the whole of a tensor. */
export interface BlockDelta extends BoundDelta {
  /** Which part of the tensor it is, to see that none is missing. */
  readonly part: string;
}

export interface BoundBlocks {
  /** By tensors on disk, in the order of their rows. */
  readonly deltas: ReadonlyMap<string, readonly BlockDelta[]>;
  /** What was done, for the plan. */
  readonly rules: readonly string[];
}

/** What a pair does to one tensor on disk. */
export interface Placed {
  readonly tensor: string;
  readonly rule: string;
  readonly delta: BlockDelta;
}

/** Whether a pair cannot be added to one tensor as a whole. */
export function isCut(pair: LoraPair, { names, toDisk }: BlockBinding): boolean {
  return pair.layer === 'linear' && names.find(toDisk(`${pair.module}.weight`)) !== undefined;
}

/**
 * Binds what the base cuts in another way than the adapter: fused projections and experts on one
 * side only. A is shared or sliced by rows; B, and DoRA's lengths, are sliced by outputs: all of it
 * exact.
 *
 * @throws WeldlineError `adapter.unsupported-feature`, `adapter.shape-mismatch`,
 *   `adapter.ambiguous-binding`, `adapter.ambiguous-orientation`, `adapter.rank-mismatch`,
 *   `adapter.target-without-tensors`
 */
export function bindBlocks(binding: BlockBinding): BoundBlocks {
  const { adapter, names, toDisk } = binding;
  const placed: Placed[] = [];
  for (const pair of adapter.pairs) {
    if (pair.layer !== 'linear') continue;
    const block = names.find(toDisk(`${pair.module}.weight`));
    if (block !== undefined) placed.push(...placePair(binding, pair, block));
  }
  placed.push(...bindExperts(binding));
  const deltas = new Map<string, BlockDelta[]>();
  for (const { tensor, delta } of placed) {
    const others = deltas.get(tensor);
    if (others === undefined) deltas.set(tensor, [delta]);
    else others.push(delta);
  }
  for (const [tensor, list] of deltas) sortAndCheck(adapter, tensor, list);
  checkBlocks(binding, deltas);
  return { deltas, rules: [...new Set(placed.map(({ rule }) => rule))] };
}

/** Two deltas of one adapter for the same rows are two spellings of one. */
function sortAndCheck(adapter: Adapter, tensor: string, deltas: BlockDelta[]): void {
  deltas.sort((a, b) => (a.rows?.begin ?? 0) - (b.rows?.begin ?? 0));
  for (const [index, { rows, pair }] of deltas.entries()) {
    const before = deltas[index - 1];
    if (before === undefined) continue;
    const end = before.rows === undefined ? Infinity : before.rows.begin + before.rows.count;
    if (rows !== undefined && rows.begin >= end) continue;
    throw new WeldlineError(
      'adapter.ambiguous-binding',
      `Adapter "${adapter.id}" (${adapter.name}) changes "${tensor}" twice: "${pair.module}" and ` +
        `"${before.pair.module}" mean the same rows. Remove the one that is not meant. Nothing was ` +
        'written.',
    );
  }
}

function placePair(binding: BlockBinding, pair: LoraPair, block: Block): Placed[] {
  switch (block.kind) {
    case 'part':
      return [placePart(binding, pair, block)];
    case 'split':
      return split(binding, pair, block.tensors);
    case 'expert':
      return [placeExpert(binding, pair, block)];
    case 'refused':
      throw refused(binding.adapter, pair.module, block.reason);
    case 'experts':
      throw refused(binding.adapter, pair.module, 'it is a Linear, and in the base all experts');
  }
}

/** `q_proj` into the rows of `qkv_proj` that are its. */
function placePart(
  { adapter, checkpoint, names }: BlockBinding,
  pair: LoraPair,
  { tensor, part, of }: Extract<Block, { kind: 'part' }>,
): Placed {
  const { shape } = checkpoint.tensors.get(tensor)!;
  const [total = 0, columns] = shape;
  const even = of.parts.map(() => total / of.parts.length);
  const rows = of.parts.length === 3 ? names.geometry.qkvRows : even;
  const sum = rows?.reduce((a, b) => a + b, 0);
  if (rows === undefined || sum !== total || shape.length !== 2 || !rows.every(Number.isInteger)) {
    throw refused(
      adapter,
      pair.module,
      `"${tensor}" has the shape [${shape.join(', ')}], which config.json (num_attention_heads, ` +
        `num_key_value_heads, head_dim) divides into ${rows?.join(' + ') ?? 'nothing'}`,
    );
  }
  const count = rows[part]!;
  checkShape(adapter, pair, [count, columns], `rows of "${tensor}"`);
  const begin = rows.slice(0, part).reduce((a, b) => a + b, 0);
  const delta = { ...whole(pair, of.parts[part]!), rows: { begin, count } };
  return { tensor, rule: `${of.parts.join(', ')} into the rows of ${of.fused}`, delta };
}

/** `qkv_proj` into `q_proj`, `k_proj` and `v_proj`: A is shared, B has the rows of one after the other. */
function split(
  { adapter, checkpoint }: BlockBinding,
  pair: LoraPair,
  tensors: readonly string[],
): Placed[] {
  const shapes = tensors.map((tensor) => checkpoint.tensors.get(tensor)!.shape);
  const total = shapes.reduce((sum, [rows = 0]) => sum + rows, 0);
  for (const [, columns] of shapes) {
    checkShape(adapter, pair, [total, columns], tensors.map((name) => `"${name}"`).join(', '));
  }
  const leaf = (name: string): string => name.split('.').at(-2) ?? '';
  const fused = pair.module.slice(pair.module.lastIndexOf('.') + 1);
  let begin = 0;
  return tensors.map((tensor, index) => {
    const count = shapes[index]![0]!;
    const sliced = sliceOutputs(pair, begin, count);
    begin += count;
    const rule = `the rows of ${fused} into ${tensors.map(leaf).join(', ')}`;
    return { tensor, rule, delta: whole(sliced, '') };
  });
}

/** One expert's module into its rows of [experts, out, in]. */
function placeExpert(
  { adapter, checkpoint }: BlockBinding,
  pair: LoraPair,
  { tensor, expert, part }: Extract<Block, { kind: 'expert' }>,
): Placed {
  const { shape } = checkpoint.tensors.get(tensor)!;
  const [experts = 0, rows = 0, columns] = shape;
  const count = part === 'down' ? rows : rows / 2;
  if (shape.length !== 3 || expert >= experts || !Number.isInteger(count)) {
    throw refused(
      adapter,
      pair.module,
      `"${tensor}" has the shape [${shape.join(', ')}] and no place for expert ${expert}`,
    );
  }
  checkShape(adapter, pair, [count, columns], `rows of "${tensor}"`);
  const begin = expert * rows + (part === 'up' ? count : 0);
  const delta = { ...whole(pair, `expert ${expert} ${part}`), rows: { begin, count } };
  return { tensor, rule: 'experts one by one into the rows of fused ones', delta };
}

function whole(pair: LoraPair, part: string): BlockDelta {
  return { pair, transposed: false, isBias: false, part };
}

/** The pair of some of the outputs: rows of B and DoRA's lengths; A is the same. */
function sliceOutputs(pair: LoraPair, begin: number, count: number): LoraPair {
  const { magnitude } = pair;
  return {
    ...pair,
    b: sliceRows(pair.b, begin, count),
    ...(magnitude && { magnitude: sliceRows(magnitude, begin, count) }),
  };
}

/** Rows of a tensor, which lie one behind the other in its file. */
export function sliceRows(tensor: TensorEntry, begin: number, count: number): TensorEntry {
  const [rows = 1, ...rest] = tensor.shape;
  const rowBytes = tensor.byteLength / rows;
  return {
    ...tensor,
    shape: [count, ...rest],
    offset: tensor.offset + begin * rowBytes,
    byteLength: count * rowBytes,
  };
}

function checkShape(
  adapter: Adapter,
  { module, a, b }: LoraPair,
  [rows, columns]: readonly (number | undefined)[],
  where: string,
): void {
  if (b.shape[0] === rows && a.shape[1] === columns) return;
  throw new WeldlineError(
    'adapter.shape-mismatch',
    `Adapter "${adapter.id}": module "${module}" is for a weight of [${b.shape[0]}, ${a.shape[1]}], ` +
      `but it belongs to ${where}, which are [${rows}, ${columns}]. Use the base it was trained on. ` +
      'Nothing was written.',
  );
}

export function refused(adapter: Adapter, module: string, reason: string): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `Adapter "${adapter.id}": "${module}" cannot be merged exactly: ${reason}. Use a base that cuts ` +
      'its weights as the model that was trained. Nothing was written.',
  );
}
