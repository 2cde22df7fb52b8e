import {
  EXPERT_PARAMETERS,
  type ExpertLayout,
  type ExpertPart,
  expertLayoutOf,
  otherExpertsName,
} from '../architectures/experts.ts';
import {
  type FusedProjection,
  type Geometry,
  geometryOf,
  INTERLEAVED,
  isConcatenated,
  PROJECTIONS,
} from '../architectures/fused-projections.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';

/** How a weight that the adapter names lies in a base that cuts its weights in another way. */
export type Block =
  /** A part of a larger tensor on disk: `q_proj` in `qkv_proj`. */
  | {
      readonly kind: 'part';
      readonly tensor: string;
      readonly part: number;
      readonly of: Projection;
    }
  /** Several tensors on disk, one behind the other: `qkv_proj` as `q_proj`, `k_proj`, `v_proj`. */
  | { readonly kind: 'split'; readonly tensors: readonly string[] }
  /** One expert's part of a fused tensor on disk. */
  | {
      readonly kind: 'expert';
      readonly tensor: string;
      readonly expert: number;
      readonly part: ExpertPart;
    }
  /** All the experts of a layer. */
  | { readonly kind: 'experts'; readonly module: string }
  /** It is known how, and it is not exact to merge there. */
  | { readonly kind: 'refused'; readonly reason: string };

export type Projection = FusedProjection;

const WEIGHT = '.weight';

/** Finds weights that a base has under other names or in other pieces than the adapter. */
export class BlockNames {
  readonly geometry: Geometry;
  readonly experts: ExpertLayout | undefined;
  readonly #tensors: Checkpoint['tensors'];

  constructor(checkpoint: Checkpoint, config: ModelConfig) {
    this.#tensors = checkpoint.tensors;
    this.geometry = geometryOf(config);
    this.experts = expertLayoutOf(this.geometry.modelTypes);
  }

  /** The name that a tensor has on disk, where the two names of a mixture of experts differ. */
  rename(name: string): string {
    if (this.#tensors.has(name)) return name;
    const other = otherExpertsName(name);
    if (other === undefined) return name;
    return this.#tensors.has(other) || this.#findExact(other) !== undefined ? other : name;
  }

  /** Whether a weight is there, whole or in pieces. */
  has(name: string): boolean {
    const renamed = this.rename(name);
    return this.#tensors.has(renamed) || this.#findExact(renamed) !== undefined;
  }

  /** @param name of a weight, renamed @returns undefined if it is on disk as it is, or not at all */
  find(name: string): Block | undefined {
    return this.#tensors.has(name) ? undefined : this.#findExact(name);
  }

  #findExact(name: string): Block | undefined {
    if (!name.endsWith(WEIGHT)) return undefined;
    const path = name.slice(0, -WEIGHT.length);
    if (path.endsWith('.experts')) return this.#findExperts(path);
    const expert = /^(.+\.experts)\.(\d+)\.([^.]+)$/.exec(path);
    if (expert !== null) return this.#findExpert(expert[1]!, Number(expert[2]), expert[3]!);
    return this.#findProjection(path);
  }

  #findExperts(module: string): Block | undefined {
    const parts = Object.values(this.experts?.parts ?? {});
    const isThere =
      [...EXPERT_PARAMETERS.keys()].some((name) => this.#tensors.has(`${module}.${name}`)) ||
      parts.some((part) => this.#tensors.has(`${module}.0.${part}${WEIGHT}`));
    if (isThere) return { kind: 'experts', module };
    // Named after no table: better a reason than a name that is not there.
    const isUnknown =
      this.experts === undefined &&
      ['gate_proj', 'w1'].some((part) => this.#tensors.has(`${module}.0.${part}${WEIGHT}`));
    return isUnknown ? this.#unknownExperts() : undefined;
  }

  #findExpert(module: string, expert: number, leaf: string): Block | undefined {
    const fused = [...EXPERT_PARAMETERS].find(([name]) => this.#tensors.has(`${module}.${name}`));
    if (fused === undefined) return undefined;
    if (this.experts === undefined) return this.#unknownExperts();
    const { parts, plain } = this.experts;
    const found = (Object.keys(parts) as ExpertPart[]).find((part) => parts[part] === leaf);
    const [parameter] =
      [...EXPERT_PARAMETERS].find(([, held]) => found !== undefined && held.includes(found)) ?? [];
    const tensor = `${module}.${parameter}`;
    if (found === undefined || !this.#tensors.has(tensor)) return undefined;
    if (!plain) {
      return {
        kind: 'refused',
        reason:
          `the base has its experts fused in "${tensor}", [in, out] or with gate and up ` +
          'alternating, and the adapter has them one by one',
      };
    }
    return { kind: 'expert', tensor, expert, part: found };
  }

  #unknownExperts(): Block {
    const type = this.geometry.modelTypes.join(', ') || 'no model_type';
    return {
      kind: 'refused',
      reason: `how the experts of this architecture (${type}) are cut is not known`,
    };
  }

  #findProjection(path: string): Block | undefined {
    const [, stem, parent = '', leaf = ''] = /^(.+)\.([^.]+)\.([^.]+)$/.exec(path) ?? [];
    if (stem === undefined) return undefined;
    const projection = PROJECTIONS.get(parent);
    const place = (name: string): string => `${stem}.${parent}.${name}${WEIGHT}`;
    if (projection?.fused === leaf) {
      const tensors = projection.parts.map(place);
      if (tensors.every((tensor) => this.#tensors.has(tensor))) return { kind: 'split', tensors };
    }
    const part = projection?.parts.indexOf(leaf) ?? -1;
    if (projection !== undefined && part >= 0 && this.#tensors.has(place(projection.fused))) {
      const tensor = place(projection.fused);
      if (isConcatenated(this.geometry.modelTypes, projection)) {
        return { kind: 'part', tensor, part, of: projection };
      }
      const type = this.geometry.modelTypes.join(', ') || 'no model_type';
      return {
        kind: 'refused',
        reason: `the order in which "${tensor}" holds its parts is not known for ${type}`,
      };
    }
    return this.#findInterleaved(stem, parent, leaf);
  }

  /** One side has a layer whose heads alternate, the other its parts. */
  #findInterleaved(stem: string, parent: string, leaf: string): Block | undefined {
    const isPart = /^(q|k|v|query|key|value)(_proj)?$/.test(leaf);
    const places = [`${stem}.${parent}`, `${stem}.attention`, `${stem}.self_attention`];
    const inBase = places
      .flatMap((place) => INTERLEAVED.map((name) => `${place}.${name}${WEIGHT}`))
      .find((tensor) => this.#tensors.has(tensor));
    if (isPart && inBase !== undefined) {
      return {
        kind: 'refused',
        reason: `the base fuses query, key and value in "${inBase}", whose heads may alternate`,
      };
    }
    const parts = ['self_attn', parent].map((name) => `${stem}.${name}.q_proj${WEIGHT}`);
    if (INTERLEAVED.includes(leaf) && parts.some((tensor) => this.#tensors.has(tensor))) {
      return {
        kind: 'refused',
        reason: `the adapter fuses query, key and value in "${leaf}", whose heads may alternate`,
      };
    }
    return undefined;
  }
}
