/** What a pickle of torch.save is made of, as data: names of functions are never looked up. */

/** Why a pickle is not read. */
export class PickleProblem extends Error {
  /** `unsafe`: it names code to run; `damaged`: it is no pickle; `unsupported`: another kind. */
  readonly kind: 'unsafe' | 'damaged' | 'unsupported';

  constructor(kind: PickleProblem['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

/** A member of the archive, as a flat array of one type. */
export interface PickledStorage {
  readonly kind: 'storage';
  /** Name of its class, for example `FloatStorage`. */
  readonly type: string;
  readonly key: string;
  readonly elements: number;
}

export interface PickledTensor {
  readonly kind: 'tensor';
  readonly storage: PickledStorage;
  /** In elements, as the strides are. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

export interface PickledDictionary {
  readonly kind: 'dictionary';
  readonly entries: [PickledValue, PickledValue][];
}

interface PickledTuple {
  readonly kind: 'tuple';
  readonly items: readonly PickledValue[];
}

interface PickledList {
  readonly kind: 'list';
  readonly items: PickledValue[];
}

/** A class or function by its name, which is all it ever is here. */
interface PickledGlobal {
  readonly kind: 'global';
  readonly name: string;
}

export type PickledValue =
  | null
  | boolean
  | number
  | string
  | PickledStorage
  | PickledTensor
  | PickledDictionary
  | PickledTuple
  | PickledList
  | PickledGlobal;

export const DICTIONARY = 'collections.OrderedDict';
export const TENSOR = 'torch._utils._rebuild_tensor_v2';
export const PARAMETER = 'torch._utils._rebuild_parameter';
const STORAGE = /^torch\.([A-Za-z0-9]+Storage)$/;

/** Nothing is looked up: the name is compared with those of a list. */
export function globalOf(module: string, attribute: string): PickledGlobal {
  const name = `${module}.${attribute}`;
  const isKnown = [DICTIONARY, TENSOR, PARAMETER].includes(name) || STORAGE.test(name);
  if (isKnown) return { kind: 'global', name };
  if (/^torch\._utils\._rebuild_\w+$/.test(name)) {
    throw new PickleProblem('unsupported', `it has a tensor that is made by ${name}`);
  }
  throw new PickleProblem('unsafe', `it names ${JSON.stringify(name)}, which is none of those`);
}

/** ('storage', class, key, device, number of elements) */
export function storageOf(id: PickledValue): PickledStorage {
  const [word, type, key, , elements] = isKind(id, 'tuple') ? id.items : [];
  const name = isKind(type, 'global') ? STORAGE.exec(type.name)?.[1] : undefined;
  if (
    word !== 'storage' ||
    name === undefined ||
    typeof key !== 'string' ||
    !isNaturalNumber(elements)
  ) {
    throw damaged('it refers to something that is no storage');
  }
  return { kind: 'storage', type: name, key, elements };
}

/** (storage, offset, shape, strides, requires_grad, hooks[, metadata]) */
export function tensorOf(given: readonly PickledValue[]): PickledTensor {
  const [storage, offset, shape, strides, , hooks, metadata] = given;
  if (
    given.length < 6 ||
    given.length > 7 ||
    !isKind(storage, 'storage') ||
    !isNaturalNumber(offset) ||
    !isKind(hooks, 'dictionary') ||
    (metadata ?? null) !== null
  ) {
    throw new PickleProblem('unsupported', 'it has a tensor that torch.save does not write so');
  }
  return {
    kind: 'tensor',
    storage,
    offset,
    shape: naturalNumbers(shape),
    strides: naturalNumbers(strides),
  };
}

/** (tensor, requires_grad, hooks) */
export function parameterOf(given: readonly PickledValue[]): PickledTensor {
  const [tensor] = given;
  if (given.length === 3 && isKind(tensor, 'tensor')) return tensor;
  throw new PickleProblem('unsupported', 'it has a parameter that torch.save does not write so');
}

function naturalNumbers(value: PickledValue | undefined): readonly number[] {
  if (isKind(value, 'tuple') && value.items.every(isNaturalNumber)) return value.items;
  throw damaged('it has a shape or strides that are no numbers');
}

function isNaturalNumber(value: PickledValue | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

type Kind = Extract<PickledValue, object>['kind'];

export function isKind<K extends Kind>(
  value: PickledValue | undefined,
  kind: K,
): value is Extract<PickledValue, { readonly kind: K }> {
  return typeof value === 'object' && value !== null && value.kind === kind;
}

export function damaged(message: string): PickleProblem {
  return new PickleProblem('damaged', message);
}
