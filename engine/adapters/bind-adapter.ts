import { isConv1d } from '../architectures/conv1d.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import {
  findTiedEmbeddings,
  isVocabularyTensor,
  type TiedEmbeddings,
} from '../architectures/tied-embeddings.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint, CheckpointTensor } from '../safetensors/checkpoint.ts';
import { isMergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';
import { type BlockDelta, bindBlocks, isCut } from './bind-blocks.ts';
import { type BoundTokens, bindTokens } from './bind-tokens.ts';
import { bindVocabulary } from './bind-vocabulary.ts';
import { type BindingRule, chooseRule } from './binding-rule.ts';
import { BlockNames } from './block-names.ts';
import { checkBiases, checkSaved, checkTargets } from './check-targets.ts';
import { type BoundChange, bindChanges } from './kinds/bind-changes.ts';
import type { LoraPair } from './lora-pair.ts';
import { nearestNames } from './nearest-names.ts';
import { observeOrientation, orient } from './orient.ts';
import { isUntied } from './tied-sides.ts';

/** A pair and the base tensor it changes. */
export interface BoundDelta {
  readonly pair: LoraPair;
  /** Whether the base stores the weight [in, out], so that the delta is added transposed. */
  readonly transposed: boolean;
  /** Whether it is the pair's bias that changes the tensor, not its factors. */
  readonly isBias: boolean;
  /** Rows of the tensor (of all dimensions but the last) that it is added to; all if absent. */
  readonly rows?: { readonly begin: number; readonly count: number };
  /** The first column of A, and every how many-th column of B from which on, if not all are used. */
  readonly aColumn?: number;
  readonly bColumns?: { readonly begin: number; readonly step: number };
}

/** Where every tensor of one adapter goes. Keys are names on disk. */
export interface Binding {
  readonly rule: BindingRule;
  readonly deltas: ReadonlyMap<string, BoundDelta>;
  /** Of tensors that the base cuts in another way than the adapter; no tensor is in both. */
  readonly blocks: ReadonlyMap<string, readonly BlockDelta[]>;
  /** How it does so, for the plan. */
  readonly blockRules: readonly string[];
  /** What kinds beside LoRA do that is no low-rank product. */
  readonly changes: ReadonlyMap<string, BoundChange>;
  readonly replacements: ReadonlyMap<string, TensorEntry>;
  readonly tokens: ReadonlyMap<string, BoundTokens>;
  /** Rows of the embeddings, if the adapter was trained with another number than the base has. */
  readonly vocabulary: number | undefined;
  /** Set if the adapter changes one side of a tied pair: both tensors are then written. */
  readonly untied: TiedEmbeddings | undefined;
  readonly warnings: readonly string[];
}

/**
 * Binds every tensor of an adapter to exactly one tensor of the base, or to all the pieces that the
 * base has of it, from headers alone.
 *
 * @throws WeldlineError `adapter.unbound-tensor`, `adapter.ambiguous-binding`,
 *   `adapter.shape-mismatch`, `adapter.ambiguous-orientation`, `adapter.target-without-tensors`,
 *   `checkpoint.unsupported-dtype`
 */
export function bindAdapter(
  adapter: Adapter,
  checkpoint: Checkpoint,
  config: ModelConfig,
): Binding {
  const tied = findTiedEmbeddings(checkpoint, config);
  const names = new BlockNames(checkpoint, config);
  const rule = bindNames(adapter, checkpoint, tied, names);
  const toDisk = (tensor: string): string =>
    tensor === tied?.head ? tensor : names.rename(rule.toDisk(tensor));
  // The head of a tied pair is the embedding under another name.
  const baseTensor = (name: string): CheckpointTensor => {
    const onDisk = name === tied?.head ? tied.embedding : name;
    return checkpoint.tensors.get(onDisk) as CheckpointTensor;
  };

  const replacements = new Map<string, TensorEntry>();
  for (const [tensor, entry] of adapter.replacements) {
    const name = toDisk(tensor);
    if (replacements.has(name)) throw boundTwice(adapter, name, rule);
    if (name !== tied?.head && !checkpoint.tensors.has(name)) throw replacesPart(adapter, name);
    checkReplacement(adapter, name, entry, baseTensor(name));
    replacements.set(name, entry);
  }
  const vocabulary = bindVocabulary(adapter, checkpoint, tied, replacements);
  // What a delta or rows are added to: of another vocabulary, the adapter's.
  const targetOf = (name: string): CheckpointTensor => {
    const { shape } = replacements.get(name) ?? baseTensor(name);
    return { ...baseTensor(name), shape };
  };

  const deltas = new Map<string, BoundDelta>();
  const warnings: string[] = [];
  const blocks = { adapter, checkpoint, names, toDisk };
  const uncut = adapter.pairs.filter((pair) => !isCut(pair, blocks));
  refuseInPieces(adapter, uncut, (name) => baseTensor(toDisk(name)) !== undefined);
  const targets = uncut.map((pair) => {
    const name = toDisk(`${pair.module}.weight`);
    return { name, pair, target: targetOf(name) };
  });
  const observed = observeOrientation(targets);
  for (const { name, pair, target } of targets) {
    if (deltas.has(name)) throw boundTwice(adapter, name, rule);
    checkTargetDtype(adapter, name, target);
    // By its name on disk: an adapter's may have no dots.
    const layerIsConv1d = isConv1d(config.modelType, name.replace(/\.weight$/, ''));
    const { transposed, warning } = orient(adapter, { pair, target }, layerIsConv1d, observed);
    if (warning !== undefined) warnings.push(warning);
    deltas.set(name, { pair, transposed, isBias: false });
  }
  const cut = bindBlocks(blocks);
  for (const name of cut.deltas.keys()) {
    checkTargetDtype(adapter, name, targetOf(name));
    if (deltas.has(name) || replacements.has(name)) throw boundTwice(adapter, name, rule);
  }
  bindBiases(adapter, checkpoint, toDisk, deltas);
  const changes = bindChanges(adapter, { checkpoint, config, toDisk, targetOf });
  for (const name of changes.keys()) checkTargetDtype(adapter, name, targetOf(name));
  const untouched = adapter.untouched.map((module) => [toDisk(`${module}.weight`), true] as const);
  const trained = new Map<string, unknown>([...deltas, ...cut.deltas, ...changes, ...untouched]);
  checkTargets(adapter, checkpoint, trained, rule);
  checkBiases(adapter, checkpoint, trained, replacements);
  checkSaved(adapter, checkpoint, tied, new Map([...trained, ...replacements]));

  const tokens = bindTokens(adapter, { tied, toDisk, targetOf, deltas: trained, replacements });
  for (const name of tokens.keys()) checkTargetDtype(adapter, name, targetOf(name));

  const bound = { deltas, changes, replacements, tokens };
  const untied = tied !== undefined && isUntied(adapter, tied, bound) ? tied : undefined;
  if (untied !== undefined) {
    warnings.push(
      `The embeddings are tied and adapter "${adapter.id}" changes one side: both ` +
        `${untied.embedding} and ${untied.head} are written and tie_word_embeddings becomes false.`,
    );
  }
  return {
    rule,
    deltas,
    blocks: cut.deltas,
    blockRules: cut.rules,
    changes,
    replacements,
    tokens,
    vocabulary,
    untied,
    warnings: [...new Set(warnings)],
  };
}

/** The bias of a B is added to the base's; a base without one has no place for it. */
function bindBiases(
  adapter: Adapter,
  checkpoint: Checkpoint,
  toDisk: (tensor: string) => string,
  deltas: Map<string, BoundDelta>,
): void {
  for (const pair of adapter.pairs) {
    if (pair.bias === undefined) continue;
    const name = toDisk(`${pair.module}.bias`);
    const target = checkpoint.tensors.get(name);
    if (target?.shape.join() !== pair.bias.shape.join()) {
      throw new WeldlineError(
        'adapter.unbound-tensor',
        `Adapter "${adapter.id}" has a lora_bias for "${pair.module}", but the base has no ` +
          `"${name}" of shape [${pair.bias.shape.join(', ')}] that it could be added to. Train ` +
          'without lora_bias, or use a base whose layers have biases. Nothing was written.',
      );
    }
    checkTargetDtype(adapter, name, target);
    deltas.set(name, { pair, transposed: false, isBias: true });
  }
}

function bindNames(
  adapter: Adapter,
  checkpoint: Checkpoint,
  tied: TiedEmbeddings | undefined,
  blocks: BlockNames,
): BindingRule {
  const names = [
    ...[...adapter.pairs, ...adapter.expertPairs, ...adapter.changes].map(
      ({ module }) => `${module}.weight`,
    ),
    ...adapter.untouched.map((module) => `${module}.weight`),
    ...adapter.replacements.keys(),
    ...[...adapter.tokens.keys()].map((module) => `${module}.weight`),
  ];
  const elsewhere = new Set(tied === undefined ? [] : [tied.head]);
  const isOnDisk = (name: string): boolean => blocks.has(name);
  const { format } = adapter;
  const options = { checkpoint, isOnDisk, elsewhere, format };
  const { rule, unbound, fitting } = chooseRule(names, options);
  const [first] = unbound;
  if (first === undefined) return rule;
  if (fitting > 1) {
    throw new WeldlineError(
      'adapter.ambiguous-binding',
      `Adapter "${adapter.id}": tensor "${first}" and its like fit the base in more than one way. ` +
        'Rename the adapter to the names of the base.',
    );
  }
  const nearest = nearestNames(first, checkpoint.tensors.keys(), 3);
  const trainedOn = adapter.config.baseModel;
  throw new WeldlineError(
    'adapter.unbound-tensor',
    `${unbound.length} of ${names.length} tensors of adapter "${adapter.id}" (${adapter.name}) ` +
      `change nothing in the base: it has no "${first}". ` +
      (nearest.length > 0
        ? `The nearest names are ${nearest.map((n) => `"${n}"`).join(', ')}. `
        : '') +
      (trainedOn === undefined ? '' : `The adapter was trained on ${trainedOn}; `) +
      'check that this is the base. Nothing was written.',
    { details: { unbound: unbound.slice(0, 20), nearest } },
  );
}

/** Under a prefix rule two names of an adapter can mean one tensor; one would be lost. */
function boundTwice(adapter: Adapter, name: string, rule: BindingRule): WeldlineError {
  return new WeldlineError(
    'adapter.ambiguous-binding',
    `Adapter "${adapter.id}" (${adapter.name}) changes "${name}" twice: two of its names mean that ` +
      `tensor under the rule "${rule.name}". Remove the one that is not meant. Nothing was written.`,
  );
}

/** Of weights that the base has in other pieces, only factors as PEFT's LoRA has them are cut too. */
function refuseInPieces(
  adapter: Adapter,
  uncut: readonly LoraPair[],
  isWhole: (name: string) => boolean,
): void {
  const whole = new Set(uncut);
  const pairs = adapter.pairs.filter(
    (pair) => !whole.has(pair) && (pair.isOfTranspose || pair.rankScale || pair.outScale),
  );
  const changes = adapter.changes.filter(({ module }) => !isWhole(`${module}.weight`));
  const [first] = [...pairs, ...changes];
  if (first === undefined) return;
  throw new WeldlineError(
    'adapter.unsupported-feature',
    `Adapter "${adapter.id}" changes "${first.module}", which the base has in other pieces. This ` +
      "version of weldline merges only PEFT's LoRA into such weights. Use a checkpoint with the names " +
      'that the adapter was trained on. Nothing was written.',
  );
}

function replacesPart(adapter: Adapter, name: string): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `Adapter "${adapter.id}" replaces "${name}" as a whole (modules_to_save), which the base has in ` +
      'other pieces. This version of weldline adds to such weights and does not replace them. ' +
      'Nothing was written.',
  );
}

function checkReplacement(
  adapter: Adapter,
  name: string,
  entry: TensorEntry,
  target: CheckpointTensor,
): void {
  checkTargetDtype(adapter, name, target);
  const same = (a: readonly number[], b: readonly number[]): boolean => a.join() === b.join();
  if (same(entry.shape, target.shape)) return;
  // How many rows these have is judged together.
  if (isVocabularyTensor(name) && same(entry.shape.slice(1), target.shape.slice(1))) return;
  throw new WeldlineError(
    'adapter.shape-mismatch',
    `Adapter "${adapter.id}" replaces "${name}" of shape [${target.shape.join(', ')}] by one of ` +
      `shape [${entry.shape.join(', ')}]. Check that this is the base the adapter was trained on.`,
  );
}

function checkTargetDtype(adapter: Adapter, name: string, target: CheckpointTensor): void {
  if (isMergeDtype(target.dtype)) return;
  throw new WeldlineError(
    'checkpoint.unsupported-dtype',
    `Adapter "${adapter.id}" changes "${name}", which the base stores as ${target.dtype}. This ` +
      'version merges into BF16, F16 and F32 only; use the original 16-bit checkpoint.',
  );
}
