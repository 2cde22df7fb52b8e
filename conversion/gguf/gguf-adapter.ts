import { type Adapter, readAdapter } from '../../engine/adapters/adapter.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { openCheckpointDirectory } from '../checkpoint-directory.ts';

/** An adapter that llama.cpp can apply. */
export interface GgufAdapter {
  readonly weightsFile: string;
  /**
   * For every module: llama.cpp multiplies by alpha over the rank. Rank-stabilised adapters are
   * multiplied by alpha over its root, and so have a larger alpha here than in their configuration.
   */
  readonly alpha: number;
  /** Modules with a LoRA on them. */
  readonly modules: readonly string[];
}

/**
 * Reads an adapter and checks that a GGUF adapter means the same: LoRA on linear layers or
 * embeddings, with one alpha.
 *
 * @throws WeldlineError `convert.adapter-unsupported` with what is in the way; `adapter.*`
 */
export async function readGgufAdapter(id: string, directory: string): Promise<GgufAdapter> {
  const adapter = await readAdapter(id, await openCheckpointDirectory(directory));
  const problem = findProblem(adapter);
  if (problem !== undefined) throw adapterUnsupported(id, problem);
  const alphas = new Set(
    adapter.pairs.map(
      ({ alpha, rank }) => alpha * (adapter.config.useRslora ? Math.sqrt(rank) : 1),
    ),
  );
  const [alpha, other] = alphas;
  if (alpha === undefined) throw adapterUnsupported(id, 'has no LoRA');
  if (other !== undefined) {
    throw adapterUnsupported(id, `has more than one strength (alpha ${alpha} and ${other})`);
  }
  return {
    weightsFile: adapter.weightsFile,
    alpha,
    modules: adapter.pairs.map(({ module }) => module),
  };
}

function findProblem({ format, config, ...content }: Adapter): string | undefined {
  const { changes, expertPairs, replacements, tokens } = content;
  const problems: readonly (readonly [boolean, string])[] = [
    [format !== 'peft', `is in the ${format} format, and llama.cpp reads PEFT's safetensors`],
    [config.kind.type !== 'LORA', `is ${config.kind.type}, and llama.cpp knows LoRA only`],
    [config.useDora, 'uses DoRA'],
    [config.loraBias || config.trainedBiases !== 'none', 'has trained biases'],
    [replacements.size > 0, 'has whole tensors beside its LoRA (modules_to_save)'],
    [tokens.size > 0, 'has trained rows of an embedding'],
    [expertPairs.length > 0, 'has LoRA on fused experts'],
    [changes.length > 0, 'changes weights in another way than by LoRA'],
    [config.layerReplication.length > 0, 'replicates layers'],
    [config.fanInFanOut, 'is on layers that are stored the other way round (fan_in_fan_out)'],
  ];
  return problems.find(([isThere]) => isThere)?.[1];
}

export function adapterUnsupported(id: string, problem: string): WeldlineError {
  return new WeldlineError(
    'convert.adapter-unsupported',
    `The adapter ${id} ${problem}: a GGUF adapter cannot express that. Set adapters: false under ` +
      'gguf; the merged model has all of it.',
    { details: { adapter: id } },
  );
}
