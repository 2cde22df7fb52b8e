import type { TiedEmbeddings } from '../architectures/tied-embeddings.ts';
import { WeldlineError } from '../errors.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';
import type { BoundDelta } from './bind-adapter.ts';
import type { BoundTokens } from './bind-tokens.ts';
import { areTwinPairs, areTwins } from './find-twins.ts';

/** What an adapter does to tensors, by names on disk. */
export interface BoundTensors {
  readonly deltas: Map<string, BoundDelta>;
  readonly changes: ReadonlyMap<string, unknown>;
  readonly replacements: Map<string, TensorEntry>;
  readonly tokens: ReadonlyMap<string, BoundTokens>;
}

/**
 * Whether a tied pair is two tensors once the adapter is merged. It stays one where both sides become
 * the same: whole tensors or rows of the same values, or what was trained as one
 * (`ensure_weight_tying`; MLX always does). What an adapter has of the embedding only, but was
 * trained on both sides, is then bound to the head as well.
 *
 * The values are the adapter's alone, so the answer is in the digest of its file.
 *
 * @throws WeldlineError `adapter.unsupported-feature` if the sides differ and were trained as one
 */
export function isUntied(adapter: Adapter, tied: TiedEmbeddings, bound: BoundTensors): boolean {
  const { embedding, head } = tied;
  const { deltas, changes, replacements, tokens } = bound;
  if (adapter.config.ensureWeightTying) bindHead(adapter, tied, bound);
  const isSame =
    !(changes.has(embedding) || changes.has(head)) &&
    deltas.get(embedding) === deltas.get(head) &&
    areTwins(adapter, replacements.get(embedding), replacements.get(head)) &&
    areSameRows(adapter, tokens.get(embedding), tokens.get(head));
  if (!isSame && adapter.config.ensureWeightTying) throw differs(adapter, tied);
  return !isSame;
}

/** PEFT's head has the embedding's factors, transposed; that of MLX is the embedding itself. */
function bindHead(
  adapter: Adapter,
  { embedding, head }: TiedEmbeddings,
  { deltas, replacements }: BoundTensors,
): void {
  const [delta, ofHead] = [deltas.get(embedding), deltas.get(head)];
  if (delta !== undefined) {
    const isOne =
      ofHead === undefined
        ? adapter.format === 'mlx' && delta.pair.magnitude === undefined
        : areTwinPairs(adapter, delta.pair, ofHead.pair);
    if (isOne) deltas.set(head, delta);
  }
  const whole = replacements.get(embedding);
  if (whole !== undefined && !replacements.has(head)) replacements.set(head, whole);
}

function areSameRows(
  adapter: Adapter,
  one: BoundTokens | undefined,
  other: BoundTokens | undefined,
): boolean {
  return (
    areTwins(adapter, one?.entry, other?.entry) && one?.indices.join() === other?.indices.join()
  );
}

function differs({ name }: Adapter, { embedding, head }: TiedEmbeddings): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `${name}/adapter_config.json: the adapter changes tied embeddings, and was trained so that both ` +
      `sides change together (ensure_weight_tying; MLX always does). But what it has for ` +
      `"${embedding}" and "${head}" is not the same (factors, their scaling, rows), is for one side ` +
      'only, or is DoRA. It will not be merged in part: serve it with PEFT, or train without ' +
      'ensure_weight_tying. Nothing was written.',
  );
}
