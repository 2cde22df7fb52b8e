import type { PlannedTensor } from '../plan/plan.ts';

/** A tensor that is measured. */
export interface ChosenTensor {
  readonly tensor: PlannedTensor;
  /** How many tensors of its kind it stands for, itself among them: 1 if all are measured. */
  readonly standsFor: number;
}

export interface SpreadLimits {
  readonly tensorsMax: number;
  readonly costMax: number;
}

/** What costs more than this share of the whole is left out: it would displace all others. */
const SHARE_OF_ONE_MAX = 1 / 4;

/** Multiples of it fall evenly into [0, 1), however many are taken. */
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;

/**
 * Chooses which tensors are measured where all would take too long: the same ones on every run, as
 * many of each kind (names that differ in numbers only), and those spread evenly over the model.
 *
 * @param cost of measuring one, in units of `costMax`
 * @returns in the order of `tensors`
 */
export function spreadTensors(
  tensors: readonly PlannedTensor[],
  cost: (tensor: PlannedTensor) => number,
  { tensorsMax, costMax }: SpreadLimits,
): readonly ChosenTensor[] {
  const kinds = new Map<string, PlannedTensor[]>();
  for (const tensor of tensors) {
    const kind = kindOf(tensor.name);
    const others = kinds.get(kind);
    if (others === undefined) kinds.set(kind, [tensor]);
    else others.push(tensor);
  }
  const chosen = new Set<PlannedTensor>();
  const chosenOfKind = new Map<string, number>();
  let spent = 0;
  for (const { tensor, kind } of inTurn(kinds)) {
    const own = cost(tensor);
    if (own > costMax * SHARE_OF_ONE_MAX) continue;
    spent += own;
    if (chosen.size >= tensorsMax || spent > costMax) break;
    chosen.add(tensor);
    chosenOfKind.set(kind, (chosenOfKind.get(kind) ?? 0) + 1);
  }
  return tensors
    .filter((tensor) => chosen.has(tensor))
    .map((tensor) => {
      const kind = kindOf(tensor.name);
      const total = kinds.get(kind)?.length ?? 1;
      return { tensor, standsFor: total / (chosenOfKind.get(kind) ?? 1) };
    });
}

/** `count` of the indices below `extent`, spread evenly; which ones differs from name to name. */
export function spreadIndices(name: string, extent: number, count: number): number[] {
  if (extent <= count) return Array.from({ length: extent }, (_, index) => index);
  const shift = hashOf(name) / 2 ** 32;
  return Array.from({ length: count }, (_, i) => Math.floor(((i + shift) * extent) / count));
}

/** The layer that a tensor is of: its name up to the first number; without one, the name. */
export function layerOf(name: string): string {
  return /^(.*?\.\d+)(\.|$)/.exec(name)?.[1] ?? name;
}

function kindOf(name: string): string {
  return name.replace(/\d+/g, '#');
}

/** One of each kind, then another of each, and so on. */
function* inTurn(
  kinds: ReadonlyMap<string, readonly PlannedTensor[]>,
): Generator<{ readonly tensor: PlannedTensor; readonly kind: string }> {
  const queues = [...kinds].map(([kind, tensors]) => ({ kind, tensors: spreadOut(tensors) }));
  const longest = Math.max(0, ...queues.map(({ tensors }) => tensors.length));
  for (let turn = 0; turn < longest; turn++) {
    for (const { kind, tensors } of queues) {
      const tensor = tensors[turn];
      if (tensor !== undefined) yield { tensor, kind };
    }
  }
}

/** In an order of which every beginning is spread evenly over the whole. */
function spreadOut<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item, index) => ({ item, place: (index * GOLDEN_RATIO) % 1 }))
    .sort((one, other) => one.place - other.place)
    .map(({ item }) => item);
}

function hashOf(name: string): number {
  let hash = 0;
  for (const character of name) {
    hash = (Math.imul(hash, 31) + (character.codePointAt(0) ?? 0)) >>> 0;
  }
  return hash;
}
