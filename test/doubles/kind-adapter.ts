import { Random } from './random.ts';
import { type FloatName, randomTensor, type TinyModel } from './tiny-model.ts';

/** Inputs and outputs of the modules that adapters of other kinds are for, by the end of names. */
export const KIND_TARGETS = { 'self_attn.q_proj': [64, 64], 'mlp.down_proj': [64, 128] } as const;

const SHARED = {
  target_modules: ['q_proj', 'down_proj'],
  base_model_name_or_path: 'tiny',
  peft_version: '0.21.2',
};

type Shapes = Readonly<Record<string, readonly number[]>>;

interface Kind {
  readonly config: Readonly<Record<string, unknown>>;
  /** Shapes of the parts of a module with so many outputs and inputs. */
  readonly parts: (outputs: number, inputs: number) => Shapes;
  readonly shared?: Shapes;
}

/** Each kind as PEFT's default options shape it, with ranks of 3 and blocks of 8. */
const KINDS = {
  ADALORA: {
    config: { init_r: 3, lora_alpha: 6, total_step: 10 },
    parts: (outputs, inputs) => ({
      lora_A: [3, inputs],
      lora_B: [outputs, 3],
      lora_E: [3, 1],
    }),
  },
  VERA: {
    config: { r: 5, save_projection: true, projection_prng_key: 0 },
    parts: (outputs) => ({ vera_lambda_b: [outputs], vera_lambda_d: [5] }),
    shared: { 'base_model.vera_A': [5, 128], 'base_model.vera_B': [64, 5] },
  },
  LOHA: {
    config: { r: 3, alpha: 6 },
    parts: (outputs, inputs) => ({
      hada_w1_a: [outputs, 3],
      hada_w1_b: [3, inputs],
      hada_w2_a: [outputs, 3],
      hada_w2_b: [3, inputs],
    }),
  },
  LOKR: {
    config: { r: 3, alpha: 6, decompose_factor: 8 },
    parts: (outputs, inputs) => ({
      lokr_w1: [8, 8],
      lokr_w2_a: [outputs / 8, 3],
      lokr_w2_b: [3, inputs / 8],
    }),
  },
  IA3: {
    config: { feedforward_modules: ['down_proj'] },
    // The one that is not square is feedforward.
    parts: (outputs, inputs) => ({ ia3_l: inputs === outputs ? [outputs, 1] : [1, inputs] }),
  },
  OFT: {
    config: { oft_block_size: 8, r: 0, use_cayley_neumann: true },
    parts: (_, inputs) => ({ 'oft_R.weight': [inputs / 8, 28] }),
  },
} satisfies Readonly<Record<string, Kind>>;

export type KindName = keyof typeof KINDS;

export const KIND_NAMES = Object.keys(KINDS) as readonly KindName[];

/** A tiny adapter of a kind beside LoRA for `tinyBase`, as PEFT saves it. */
export function kindAdapter(type: KindName, dtype: FloatName = 'F32', seed = 41): TinyModel {
  const kind: Kind = KINDS[type];
  const random = new Random(seed);
  const tensors = Object.entries(kind.shared ?? {}).map(([name, shape]) =>
    randomTensor(random, name, dtype, shape),
  );
  for (const layer of [0, 1]) {
    for (const [module, [outputs, inputs]] of Object.entries(KIND_TARGETS)) {
      for (const [part, shape] of Object.entries(kind.parts(outputs, inputs))) {
        const name = `base_model.model.model.layers.${layer}.${module}.${part}`;
        tensors.push(randomTensor(random, name, dtype, shape));
      }
    }
  }
  const config = { peft_type: type, ...SHARED, ...kind.config };
  return { config, tensors, files: {}, shards: 1 };
}
