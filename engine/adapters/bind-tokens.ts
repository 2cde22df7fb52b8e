import type { TiedEmbeddings } from '../architectures/tied-embeddings.ts';
import { WeldlineError } from '../errors.ts';
import type { CheckpointTensor } from '../safetensors/checkpoint.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';
import { isTrainedInFull } from './bind-vocabulary.ts';

/** Rows of an embedding that take the place of the base's. */
export interface BoundTokens {
  /** Shape [tokens, hidden]. */
  readonly entry: TensorEntry;
  /** The row that each of them replaces. */
  readonly indices: readonly number[];
}

/** What else is bound, and how names are. */
export interface TokenTargets {
  readonly tied: TiedEmbeddings | undefined;
  readonly toDisk: (tensor: string) => string;
  /** The tensor whose rows are replaced, by its name on disk. */
  readonly targetOf: (name: string) => Pick<CheckpointTensor, 'shape'>;
  readonly deltas: ReadonlyMap<string, unknown>;
  readonly replacements: ReadonlyMap<string, TensorEntry>;
}

/**
 * Binds the rows of `trainable_token_indices`, whose indices are in the configuration alone. On a
 * tied pair PEFT trains both sides as one, unless other rows were trained of the head.
 *
 * @returns by names on disk; for both sides of a tied pair
 * @throws WeldlineError `adapter.bad-shape`, `adapter.shape-mismatch`,
 *   `adapter.target-without-tensors`, `adapter.unsupported-feature`
 */
export function bindTokens(adapter: Adapter, targets: TokenTargets): Map<string, BoundTokens> {
  const { tied, toDisk, targetOf, deltas } = targets;
  const bound = new Map<string, BoundTokens>();
  for (const [module, entry] of adapter.tokens) {
    const name = toDisk(`${module}.weight`);
    const isTied = name === tied?.embedding || name === tied?.head;
    const indices = indicesOf(adapter, module, isTied);
    checkRows(adapter, module, { entry, indices }, targetOf(name).shape);
    if (deltas.has(name)) throw alsoTrained(adapter, module, 'LoRA');
    bound.set(name, { entry, indices });
  }
  const embedding = tied === undefined ? undefined : bound.get(tied.embedding);
  if (tied !== undefined && embedding !== undefined && !bound.has(tied.head)) {
    checkTiedHead(adapter, tied.head, targets);
    bound.set(tied.head, embedding);
  }
  checkMissing(adapter, bound, toDisk);
  return bound;
}

/** PEFT finds the input embedding by the model's class; here it is the one that has rows. */
function isNamed(module: string, key: string): boolean {
  return key === '' || module === key || module.endsWith(`.${key}`);
}

/** @param isTied whether it is one side of a tied pair, which PEFT may save twice and name once */
function indicesOf(adapter: Adapter, module: string, isTied: boolean): readonly number[] {
  const all = [...adapter.config.tokenIndices];
  const named = all.filter(([key]) => isNamed(module, key));
  const [found] = isTied && named.length === 0 ? all : named;
  const isClear = found?.[0] !== '' || adapter.tokens.size === 1 || isTied;
  const isOnly = named.length === 1 || (isTied && all.length === 1);
  if (found !== undefined && isClear && isOnly) return found[1];
  throw new WeldlineError(
    'adapter.bad-shape',
    `${adapter.name}: module "${module}" has trained rows, but trainable_token_indices of ` +
      'adapter_config.json does not say which ones. Use the configuration that was saved with ' +
      'these weights.',
  );
}

function checkRows(
  { id, name }: Adapter,
  module: string,
  { entry, indices }: BoundTokens,
  [rows = 0, columns, ...rest]: readonly number[],
): void {
  if (entry.shape.join() !== [indices.length, entry.shape[1]].join()) {
    throw new WeldlineError(
      'adapter.bad-shape',
      `${name}: module "${module}" has trained rows of shape [${entry.shape.join(', ')}], but ` +
        `adapter_config.json has ${indices.length} trainable_token_indices for it. Use the ` +
        'configuration that was saved with these weights.',
    );
  }
  const beyond = indices.find((index) => index >= rows);
  if (entry.shape[1] !== columns || rest.length > 0 || beyond !== undefined) {
    const what = beyond === undefined ? `are [${entry.shape.join(', ')}]` : `go to row ${beyond}`;
    throw new WeldlineError(
      'adapter.shape-mismatch',
      `Adapter "${id}": the trained rows of "${module}" ${what}, the base's weight has shape ` +
        `[${[rows, columns, ...rest].join(', ')}]. Use the base it was trained on. Nothing was ` +
        'written.',
    );
  }
  if (new Set(indices).size === indices.length) return;
  throw new WeldlineError(
    'adapter.bad-shape',
    `${name}: trainable_token_indices names a row of "${module}" twice, and which of them counts ` +
      'cannot be told. Train again with each index once.',
  );
}

/** The head takes the embedding's rows; what it has of its own must be no more than a base weight. */
function checkTiedHead(
  adapter: Adapter,
  head: string,
  { deltas, replacements }: TokenTargets,
): void {
  const module = head.replace(/\.weight$/, '');
  if (deltas.has(head)) throw alsoTrained(adapter, module, 'LoRA');
  if (replacements.has(head) && isTrainedInFull(adapter, head)) {
    throw alsoTrained(adapter, module, 'modules_to_save');
  }
}

function alsoTrained(adapter: Adapter, module: string, how: string): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `${adapter.name}: "${module}" was trained by trainable_token_indices and by ${how}. This ` +
      'version of weldline does not merge that and will not merge it in part.',
  );
}

/** Every module that the configuration names must have rows, its own or those of a tied pair. */
function checkMissing(
  adapter: Adapter,
  bound: ReadonlyMap<string, BoundTokens>,
  toDisk: (tensor: string) => string,
): void {
  const modules = [...bound].map(([name, { indices }]) => ({
    module: name.replace(/\.weight$/, ''),
    indices: indices.join(),
  }));
  const missing = [...adapter.config.tokenIndices].find(
    ([key, indices]) =>
      !modules.some(
        (each) =>
          each.indices === indices.join() &&
          (isNamed(each.module, key) || `${each.module}.weight` === toDisk(`${key}.weight`)),
      ),
  )?.[0];
  if (missing === undefined) return;
  throw new WeldlineError(
    'adapter.target-without-tensors',
    `adapter_config.json of "${adapter.id}" has trainable_token_indices for ` +
      `${missing === '' ? 'the embedding' : missing}, and the ` +
      'adapter has no such rows. They were lost when it was saved; save it again.',
  );
}
