import { z } from 'zod';
import { unsupportedFeature } from '../config-keys.ts';
import { type FoundParts, type ModuleParts, requirePart, requireShape } from './find-parts.ts';
import type { ConfigFamily } from './kind-config.ts';
import type { ModuleChange, Rotation } from './module-change.ts';

/** OFT: the inputs of a layer are rotated, block by block. */
export interface OftKind {
  readonly type: 'OFT';
  /** Whether all blocks have the same rotation. */
  readonly isShared: boolean;
  readonly neumannTerms: number | undefined;
  /** PEFT's `eps`, if rotations are constrained (`coft`). */
  readonly epsilon: number | undefined;
}

/**
 * Larger blocks are refused: a rotation is worked out in time that grows with the third power of its
 * size, and kept in memory.
 */
const BLOCK_SIZE_MAX = 256;

/** PEFT changed its Neumann series in this version. */
const NEUMANN_VERSION = [0, 18] as const;

const BIASES: ReadonlyMap<unknown, string> = new Map([['oft_only', 'lora_only']]);

/** Keys of `OFTConfig`. */
export const OFT: ConfigFamily = {
  schema: z.looseObject({
    r: z.number().int().nonnegative().default(0),
    // Absent from what PEFT wrote up to 0.14, whose OFT was another.
    oft_block_size: z.number().int().nonnegative(),
    bias: z.string().nullish(),
    coft: z.boolean().default(false),
    eps: z.number().positive().default(6e-5),
    block_share: z.boolean().default(false),
    // Its default was changed, so it must be said.
    use_cayley_neumann: z.boolean(),
    num_cayley_neumann_terms: z.number().int().positive().default(5),
    fan_in_fan_out: z.unknown().optional(),
    module_dropout: z.unknown().optional(),
    init_weights: z.unknown().optional(),
  }),
  translate(config, where) {
    const { bias, coft, eps, block_share, use_cayley_neumann } = config;
    const { num_cayley_neumann_terms: terms, peft_version } = config;
    if (use_cayley_neumann === true && !isCurrent(peft_version)) {
      throw unsupportedFeature(
        where,
        'use_cayley_neumann is true and the adapter was saved by a PEFT before 0.18 ' +
          '(peft_version), which meant another series by it',
        'Merge it with that PEFT, or train it again.',
      );
    }
    return {
      lora: { bias: BIASES.get(bias) ?? bias },
      kind: {
        type: 'OFT',
        isShared: block_share === true,
        neumannTerms: use_cayley_neumann === true ? (terms as number) : undefined,
        epsilon: coft === true ? (eps as number) : undefined,
      },
    };
  },
};

function isCurrent(version: unknown): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(String(version)) ?? [];
  const [neededMajor, neededMinor] = NEUMANN_VERSION;
  return (
    Number(major) > neededMajor || (Number(major) === neededMajor && Number(minor) >= neededMinor)
  );
}

/**
 * OFT's changes: each row of the file is the upper triangle of a skew-symmetric matrix, from which
 * the rotation of a block is made (PEFT's `OFTRotationModule`).
 *
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.unsupported-feature`
 */
export function oftChanges(kind: OftKind, found: FoundParts, where: string): ModuleChange[] {
  return found.modules.map((each) => {
    const { module, layer } = each;
    const part = layer === 'embedding' ? 'oft_embedding_R' : 'oft_R';
    const blocks = requirePart(each, part, where);
    requireShape(each, part, blocks, [kind.isShared ? 1 : undefined, undefined], where);
    const [count = 0, numbers = 0] = blocks.shape;
    const size = blockSize(each, numbers, where);
    const rotation: Rotation = {
      size,
      ...(kind.neumannTerms !== undefined && { neumannTerms: kind.neumannTerms }),
      ...(kind.epsilon !== undefined && { radius: kind.epsilon / Math.sqrt(count) }),
    };
    // What the rotated side of the layer has; shared blocks leave it open.
    const width = kind.isShared ? undefined : count * size;
    return {
      module,
      layer,
      inputs: layer === 'embedding' ? undefined : width,
      outputs: layer === 'embedding' ? width : undefined,
      form: { kind: 'rotation', blocks, rotation },
      idleIfZero: [blocks],
    };
  });
}

/** From how many numbers its upper triangle has, without the diagonal. */
function blockSize({ module }: ModuleParts, numbers: number, where: string): number {
  const size = Math.round((1 + Math.sqrt(1 + 8 * numbers)) / 2);
  if ((size * (size - 1)) / 2 !== numbers) {
    throw unsupportedFeature(
      where,
      `module "${module}" has blocks of ${numbers} numbers, which fill no triangle of a matrix`,
      'Adapters of PEFT before 0.15 are so: merge it with the PEFT that made it.',
    );
  }
  if (size <= BLOCK_SIZE_MAX) return size;
  throw unsupportedFeature(
    where,
    `module "${module}" rotates blocks of ${size}; weldline takes up to ${BLOCK_SIZE_MAX}`,
    'Merge the adapter with PEFT (merge_and_unload) and release what that saves.',
  );
}
