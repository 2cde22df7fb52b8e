/** What two adapters add, compared. */
export interface PairFigures {
  readonly adapters: readonly [string, string];
  /** Tensors that both change, of those that were measured. */
  readonly tensors: number;
  /**
   * ⟨d₁, d₂⟩ / (‖d₁‖ ‖d₂‖) over those tensors, each delta with its weight: 1 for the same
   * direction, 0 for unrelated ones, −1 for opposite ones. Null where one of them is zero.
   */
  readonly cosine: number | null;
  /**
   * Of sampled elements that both change, the share that gets opposite signs: about 0.5 for
   * unrelated deltas. Null where there is none.
   */
  readonly signConflicts: number | null;
}

export interface AdapterFigures {
  readonly id: string;
  /** Tensors that it adds to, of those that were measured. */
  readonly tensors: number;
  /** ‖d‖ over these, with the adapter's weight. */
  readonly norm: number;
}

/** One tensor, compared: a number for each pair of adapters, at `i * adapters + j` with i ≤ j. */
export interface ComparedTensor {
  /** Places of the adapters that add to it, ascending. */
  readonly present: readonly number[];
  /** ⟨dᵢ, dⱼ⟩ */
  readonly products: Float64Array;
  /** Sampled elements that both change, and those of them with opposite signs. */
  readonly elements: Float64Array;
  readonly opposed: Float64Array;
}

interface PairSum {
  tensors: number;
  product: number;
  /** ‖dᵢ‖² and ‖dⱼ‖² over the tensors that both change. */
  energyOfFirst: number;
  energyOfSecond: number;
  elements: number;
  opposed: number;
}

/** What is added up of one tensor, of a layer or of a model, to compare adapters by. */
export class PairSums {
  readonly #ids: readonly string[];
  /** By the places of both adapters; the sums of an adapter with itself too. */
  readonly #sums = new Map<number, PairSum>();

  constructor(ids: readonly string[]) {
    this.#ids = ids;
  }

  /** @param weight how many tensors it stands for */
  addTensor({ present, products, elements, opposed }: ComparedTensor, weight: number): void {
    const count = this.#ids.length;
    for (const i of present) {
      for (const j of present) {
        if (j < i) continue;
        const at = i * count + j;
        const sum = this.#sums.get(at) ?? emptySum();
        this.#sums.set(at, sum);
        sum.tensors++;
        sum.product += weight * products[at]!;
        sum.energyOfFirst += weight * products[i * count + i]!;
        sum.energyOfSecond += weight * products[j * count + j]!;
        sum.elements += weight * elements[at]!;
        sum.opposed += weight * opposed[at]!;
      }
    }
  }

  adapters(): readonly AdapterFigures[] {
    return this.#ids.map((id, i) => {
      const { tensors, product } = this.#sums.get(i * this.#ids.length + i) ?? emptySum();
      return { id, tensors, norm: Math.sqrt(product) };
    });
  }

  /** Of adapters that have a tensor in common. */
  pairs(): readonly PairFigures[] {
    return this.#ids.flatMap((one, i) =>
      this.#ids.flatMap((other, j) => {
        const sum = i < j ? this.#sums.get(i * this.#ids.length + j) : undefined;
        return sum === undefined ? [] : [{ adapters: [one, other] as const, ...figuresOf(sum) }];
      }),
    );
  }
}

function emptySum(): PairSum {
  return {
    ...{ tensors: 0, product: 0, energyOfFirst: 0, energyOfSecond: 0 },
    ...{ elements: 0, opposed: 0 },
  };
}

function figuresOf(sum: PairSum): Omit<PairFigures, 'adapters'> {
  const norms = Math.sqrt(sum.energyOfFirst) * Math.sqrt(sum.energyOfSecond);
  const cosine = norms > 0 ? Math.max(-1, Math.min(1, sum.product / norms)) : null;
  const signConflicts = sum.elements > 0 ? sum.opposed / sum.elements : null;
  return { tensors: sum.tensors, cosine, signConflicts };
}
