import { WeldlineError } from '../errors.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { type AdapterKey, parseAdapterKey } from './adapter-key.ts';
import type { FoundPair } from './lora-pair.ts';

/** A tensor that a file holds twice. */
export interface TensorCopy {
  readonly of: TensorEntry;
  readonly copy: TensorEntry;
}

/** The tensors of an adapter by what they are for. */
export interface SortedTensors {
  readonly found: readonly FoundPair[];
  /** By the base tensor's name. */
  readonly replacements: ReadonlyMap<string, TensorEntry>;
  readonly copies: readonly TensorCopy[];
  /** By module. */
  readonly tokens: ReadonlyMap<string, TensorEntry>;
}

/**
 * Sorts the tensors of an adapter file by their names.
 *
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.unknown-key`, `adapter.unsupported-feature`,
 *   `adapter.duplicate-key`, `adapter.half-pair`
 */
export function sortTensors(tensors: readonly TensorEntry[], where: string): SortedTensors {
  const halves = new Map<string, FoundPair>();
  const replacements = new Map<string, TensorEntry>();
  const originals = new Map<string, TensorEntry>();
  const copies: TensorCopy[] = [];
  const tokens = new Map<string, TensorEntry>();
  const adapterNames = new Set<string>();
  for (const tensor of tensors) {
    const key = parseAdapterKey(tensor.name, where);
    if ('adapterName' in key) adapterNames.add(key.adapterName);
    if (key.kind === 'original') originals.set(key.tensor, tensor);
    else if (key.kind === 'tokens') addOnce(tokens, key.module, tensor, where);
    else if (key.kind !== 'replacement') addHalf(halves, key, tensor, where);
    else {
      const of = replacements.get(key.tensor);
      if (of !== undefined && isAlike(of, tensor)) copies.push({ of, copy: tensor });
      else addOnce(replacements, key.tensor, tensor, where);
    }
  }
  refuseSeveral(adapterNames, where);
  moveToEmbeddings(halves, where);
  refuseUntrained(originals, replacements, where);
  return { found: [...halves.values()], replacements, copies, tokens };
}

function addHalf(
  halves: Map<string, FoundPair>,
  key: Extract<AdapterKey, { kind: 'lora_A' | 'lora_B' | 'lora_bias' | 'lora_magnitude' }>,
  tensor: TensorEntry,
  where: string,
): void {
  const { module } = key;
  const layer = 'layer' in key ? key.layer : 'linear';
  const pair = halves.get(`${layer} ${module}`) ?? { module, layer };
  if (pair[key.kind] !== undefined) throw duplicateKey(where, tensor.name);
  pair[key.kind] = key.kind === 'lora_magnitude' ? asVector(tensor) : tensor;
  halves.set(`${layer} ${module}`, pair);
}

/** LyCORIS writes lengths of outputs as a column, and those of inputs as a row, which are no such thing. */
function asVector(tensor: TensorEntry): TensorEntry {
  const [rows = 0, columns] = tensor.shape;
  return tensor.shape.length === 2 && columns === 1 ? { ...tensor, shape: [rows] } : tensor;
}

/** A magnitude has one name on all layers; that it is an embedding's shows beside the factors. */
function moveToEmbeddings(halves: Map<string, FoundPair>, where: string): void {
  for (const [key, pair] of halves) {
    if (pair.layer !== 'embedding') continue;
    const other = halves.get(`linear ${pair.module}`);
    if (other?.lora_magnitude === undefined) continue;
    if (other.lora_A !== undefined || other.lora_B !== undefined) {
      throw duplicateKey(where, other.lora_magnitude.name);
    }
    pair.lora_magnitude = other.lora_magnitude;
    halves.delete(`linear ${pair.module}`);
    halves.set(key, pair);
  }
}

function addOnce(
  into: Map<string, TensorEntry>,
  name: string,
  tensor: TensorEntry,
  where: string,
): void {
  if (into.has(name)) throw duplicateKey(where, tensor.name);
  into.set(name, tensor);
}

/** PEFT saves `modules_to_save` twice where it also saves the embeddings; the bytes decide. */
function isAlike(a: TensorEntry, b: TensorEntry): boolean {
  return a.dtype === b.dtype && a.shape.join() === b.shape.join();
}

function duplicateKey(where: string, key: string): WeldlineError {
  return new WeldlineError(
    'adapter.duplicate-key',
    `${where}: tensor "${key}" says again, in another spelling, what an earlier one said. Save ` +
      'the adapter again with PEFT.',
  );
}

function refuseSeveral(adapterNames: ReadonlySet<string>, where: string): void {
  if (adapterNames.size <= 1) return;
  throw new WeldlineError(
    'adapter.duplicate-key',
    `${where} holds several adapters (${[...adapterNames].join(', ')}) in one file. Save ` +
      'each with save_pretrained(selected_adapters=[…]).',
  );
}

/** What a module was before the training is of no use, but what it became must be there. */
function refuseUntrained(
  originals: ReadonlyMap<string, TensorEntry>,
  replacements: ReadonlyMap<string, TensorEntry>,
  where: string,
): void {
  const lost = [...originals].find(([tensor]) => !replacements.has(tensor))?.[1];
  if (lost === undefined) return;
  throw new WeldlineError(
    'adapter.half-pair',
    `${where} has "${lost.name}", a weight before its training, but not the trained one. The file ` +
      'is incomplete; save the adapter again.',
  );
}
