import { Random } from './random.ts';
import { type FloatName, randomTensor, type TinyModel } from './tiny-model.ts';
import type { TestTensor } from './write-safetensors.ts';

export interface TinyExpertsOptions {
  readonly hidden?: number;
  readonly intermediate?: number;
  readonly experts?: number;
  readonly layers?: number;
  readonly dtype?: FloatName;
  /** Experts lie fused on disk, [experts, out, in]; otherwise one by one. */
  readonly fused?: boolean;
}

const DEFAULTS = {
  hidden: 64,
  intermediate: 24,
  experts: 4,
  layers: 1,
  dtype: 'BF16',
  fused: false,
};

/** The experts of a Qwen3-MoE, and little else. */
export function tinyExperts(options: TinyExpertsOptions = {}): TinyModel {
  const { hidden, intermediate, experts, layers, dtype, fused } = { ...DEFAULTS, ...options };
  const random = new Random(31);
  const tensor = (name: string, ...shape: number[]): TestTensor =>
    randomTensor(random, name, dtype as FloatName, shape);
  const tensors: TestTensor[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const stem = `model.layers.${layer}.mlp.experts`;
    if (fused) {
      tensors.push(tensor(`${stem}.gate_up_proj`, experts, 2 * intermediate, hidden));
      tensors.push(tensor(`${stem}.down_proj`, experts, hidden, intermediate));
      continue;
    }
    for (let expert = 0; expert < experts; expert++) {
      tensors.push(tensor(`${stem}.${expert}.gate_proj.weight`, intermediate, hidden));
      tensors.push(tensor(`${stem}.${expert}.up_proj.weight`, intermediate, hidden));
      tensors.push(tensor(`${stem}.${expert}.down_proj.weight`, hidden, intermediate));
    }
  }
  return { config: { model_type: 'qwen3_moe' }, tensors, files: {}, shards: 1 };
}

/** LoRA on both parameters of all experts, as PEFT saves it. */
export function fusedExpertsAdapter(
  options: TinyExpertsOptions & { rank?: number } = {},
): TinyModel {
  const { hidden, intermediate, experts, layers } = { ...DEFAULTS, ...options };
  const { rank = 3 } = options;
  const random = new Random(32);
  const tensors: TestTensor[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const stem = `base_model.model.model.layers.${layer}.mlp.experts`;
    const pair = (path: string, out: number, inputs: number): void => {
      const name = (half: string): string => `${stem}${path}.lora_${half}.weight`;
      tensors.push(randomTensor(random, name('A'), 'F32', [experts * rank, inputs]));
      tensors.push(randomTensor(random, name('B'), 'F32', [out, rank * experts]));
    };
    pair('.base_layer', 2 * intermediate, hidden);
    pair('', hidden, intermediate);
  }
  const target_parameters = ['mlp.experts.gate_up_proj', 'mlp.experts.down_proj'];
  const config = { peft_type: 'LORA', r: rank, lora_alpha: 2 * rank, target_parameters };
  return { config, tensors, files: {}, shards: 1 };
}

/** LoRA on the modules of each expert, as PEFT saved it with transformers 4. */
export function expertModulesAdapter(options: TinyExpertsOptions = {}): TinyModel {
  const { hidden, intermediate, experts, layers } = { ...DEFAULTS, ...options };
  const random = new Random(33);
  const shapes: readonly (readonly [string, number, number])[] = [
    ['gate_proj', intermediate, hidden],
    ['up_proj', intermediate, hidden],
    ['down_proj', hidden, intermediate],
  ];
  const tensors: TestTensor[] = [];
  for (let layer = 0; layer < layers; layer++) {
    for (let expert = 0; expert < experts; expert++) {
      for (const [module, out, inputs] of shapes) {
        const stem = `base_model.model.model.layers.${layer}.mlp.experts.${expert}.${module}`;
        tensors.push(randomTensor(random, `${stem}.lora_A.weight`, 'F32', [2, inputs]));
        tensors.push(randomTensor(random, `${stem}.lora_B.weight`, 'F32', [out, 2]));
      }
    }
  }
  const target_modules = shapes.map(([module]) => module);
  const config = { peft_type: 'LORA', r: 2, lora_alpha: 4, target_modules };
  return { config, tensors, files: {}, shards: 1 };
}
