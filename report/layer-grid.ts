/** Tensors of a model, or figures of them, by layer and module. */
export interface LayerGrid<Value> {
  /** What the layers have in common: `model.layers`. */
  readonly stack: string;
  /** Ascending. */
  readonly layers: readonly number[];
  /** As data goes through a layer: `self_attn.q_proj`; numbers in them (experts) are `*`. */
  readonly modules: readonly string[];
  readonly valuesAt: (layer: number, module: string) => readonly Value[];
}

export interface GriddedTensors<Value> {
  readonly grids: readonly LayerGrid<Value>[];
  /** Outside of all layers: embeddings, the head. */
  readonly others: readonly Value[];
}

/** Puts what belongs to named tensors into grids, one for each stack of layers. */
export function layerGrids<Value extends { readonly name: string }>(
  tensors: readonly Value[],
): GriddedTensors<Value> {
  const stacks = new Map<string, Map<number, Map<string, Value[]>>>();
  const others: Value[] = [];
  for (const tensor of tensors) {
    const place = placeOf(tensor.name);
    if (place === undefined) {
      others.push(tensor);
      continue;
    }
    const layers = entryOf(stacks, place.stack, () => new Map<number, Map<string, Value[]>>());
    const modules = entryOf(layers, place.layer, () => new Map<string, Value[]>());
    entryOf(modules, place.module, (): Value[] => []).push(tensor);
  }
  const grids = [...stacks].map(([stack, layers]) => ({
    stack,
    layers: [...layers.keys()].sort((one, other) => one - other),
    modules: inUsualOrder([
      ...new Set([...layers.values()].flatMap((modules) => [...modules.keys()])),
    ]),
    valuesAt: (layer: number, module: string) => layers.get(layer)?.get(module) ?? [],
  }));
  return { grids, others };
}

/** The first number in a name is the layer. */
function placeOf(
  name: string,
): { readonly stack: string; readonly layer: number; readonly module: string } | undefined {
  const match = /^(?:(.*?)\.)?(\d{1,6})\.(.+)$/.exec(name);
  if (match === null) return undefined;
  const [, stack = '', layer, rest = ''] = match;
  const module = rest.replace(/\.weight$/, '').replace(/(?<=^|\.)\d+(?=\.|$)/g, '*');
  return { stack, layer: Number(layer), module };
}

const USUAL_ORDER = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];

/** The modules of most models in the order in which data meets them; others after these. */
function inUsualOrder(modules: readonly string[]): readonly string[] {
  const rank = (module: string): number => {
    const place = USUAL_ORDER.findIndex((name) => module === name || module.endsWith(`.${name}`));
    return place === -1 ? USUAL_ORDER.length : place;
  };
  return modules.toSorted((one, other) => rank(one) - rank(other));
}

function entryOf<Key, Entry>(map: Map<Key, Entry>, key: Key, make: () => Entry): Entry {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}

/** Names without what all but the last of their parts say, where that tells them apart. */
export function shortNames(names: readonly string[]): readonly string[] {
  const lasts = names.map((name) => name.slice(name.lastIndexOf('.') + 1));
  return names.map((name, index) => {
    const last = lasts[index] ?? name;
    return lasts.filter((other) => other === last).length === 1 ? last : name;
  });
}
