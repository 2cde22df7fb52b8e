import { EXPERT_PARAMETERS, type ExpertPart } from '../architectures/experts.ts';
import { WeldlineError } from '../errors.ts';
import type { Adapter } from './adapter.ts';
import {
  type BlockBinding,
  type BlockDelta,
  type Placed,
  refused,
  sliceRows,
} from './bind-blocks.ts';
import type { ExpertPair } from './expert-pair.ts';
import { type ModuleScaling, scalingsOf } from './scaling.ts';

/** A parameter of all experts of a layer as PEFT saw it: [experts, rows, columns]. */
interface ExpertParameter {
  readonly name: string;
  readonly experts: number;
  readonly rows: number;
  readonly columns: number;
  /** The tensors on disk that hold one expert's rows, in order. */
  readonly pieces: (expert: number) => readonly Piece[];
  /** What was done, for the plan. */
  readonly rule: string;
}

interface Piece {
  readonly tensor: string;
  /** Rows of the parameter that it holds. */
  readonly begin: number;
  readonly count: number;
  /** Where they begin in the tensor, if it holds other rows too. */
  readonly rowBegin?: number;
}

/** A pair, and the parameter whose shape it has, one way round or both. */
interface Match {
  readonly pair: ExpertPair;
  readonly parameter: ExpertParameter;
  /** B A has the parameter's shape; its transpose has. */
  readonly fits: { readonly plain: boolean; readonly transposed: boolean };
}

/**
 * Binds LoRA on the fused parameters of experts (`target_parameters`): B_e A_e to the rows of expert
 * e, wherever these lie on disk. PEFT before 0.19 read [experts, out, in] as [experts, in, out], so
 * what such adapters add is the transpose; the shapes tell, and where all are square, the version.
 */
export function bindExperts(binding: BlockBinding): Placed[] {
  const { adapter } = binding;
  const matches = adapter.expertPairs.map((pair) => match(binding, pair));
  const taken = new Set<string>();
  for (const { pair, parameter } of matches) {
    const name = `${pair.module}.${parameter.name}`;
    if (taken.has(name)) {
      throw new WeldlineError(
        'adapter.ambiguous-binding',
        `Adapter "${adapter.id}" has two pairs with the shape of "${name}". Which of them it is ` +
          'cannot be known; save the adapter again.',
      );
    }
    taken.add(name);
  }
  const names = matches.map(({ pair, parameter }) => `${pair.module}.${parameter.name}`);
  const scalings = scalingsOf(adapter.config, names, adapter.name);
  const observed = observe(matches);
  return matches.flatMap((each, index) => {
    const scaling = scalings[index] as ModuleScaling;
    checkRank(adapter, each, scaling);
    return place(each, scaling, isTransposed(binding, each, observed));
  });
}

function match(binding: BlockBinding, pair: ExpertPair): Match {
  const { adapter, names, toDisk } = binding;
  const block = names.find(toDisk(`${pair.module}.weight`));
  if (block?.kind === 'refused') throw refused(adapter, pair.module, block.reason);
  if (block?.kind !== 'experts')
    throw refused(adapter, pair.module, 'the base has no such experts');
  if (names.experts === undefined) {
    const type = names.geometry.modelTypes.join(', ') || 'no model_type';
    throw refused(adapter, pair.module, `the experts of this architecture (${type}) are not known`);
  }
  const { parts, plain } = names.experts;
  const parameters = [...EXPERT_PARAMETERS].flatMap(([name, held]) => {
    const found =
      fusedOnDisk(binding, block.module, name) ??
      (plain
        ? oneByOne(
            binding,
            block.module,
            name,
            held.map((part) => parts[part]),
            held,
          )
        : undefined);
    return found ?? [];
  });
  const [inputs, outputs] = [pair.a.shape[1], pair.b.shape[0]];
  const fitting = parameters
    .map((parameter) => ({ pair, parameter, fits: fitShape(parameter, inputs, outputs) }))
    .filter(({ fits }) => fits.plain || fits.transposed);
  const [first, second] = fitting;
  if (first !== undefined && second === undefined) return first;
  const shapes = parameters.map(({ name, rows, columns }) => `${name} [${rows}, ${columns}]`);
  throw new WeldlineError(
    'adapter.shape-mismatch',
    `Adapter "${adapter.id}": a pair of "${pair.module}" has ${inputs} inputs and ${outputs} ` +
      `outputs, which ${first === undefined ? 'no parameter' : 'more than one parameter'} of the ` +
      `base's experts has (${shapes.join(', ')}). Use the base it was trained on. Nothing was written.`,
  );
}

function fitShape(
  { rows, columns }: ExpertParameter,
  inputs: number | undefined,
  outputs: number | undefined,
): Match['fits'] {
  return {
    plain: outputs === rows && inputs === columns,
    transposed: outputs === columns && inputs === rows,
  };
}

function fusedOnDisk(
  { checkpoint }: BlockBinding,
  module: string,
  name: string,
): ExpertParameter | undefined {
  const tensor = `${module}.${name}`;
  const [experts, rows, columns, ...rest] = checkpoint.tensors.get(tensor)?.shape ?? [];
  if (experts === undefined || rows === undefined || columns === undefined || rest.length > 0) {
    return undefined;
  }
  const pieces = (expert: number): Piece[] => [
    { tensor, begin: 0, count: rows, rowBegin: expert * rows },
  ];
  return { name, experts, rows, columns, pieces, rule: 'fused experts' };
}

function oneByOne(
  { adapter, checkpoint }: BlockBinding,
  module: string,
  name: string,
  leaves: readonly string[],
  held: readonly ExpertPart[],
): ExpertParameter | undefined {
  const tensorOf = (expert: number, leaf: string): string => `${module}.${expert}.${leaf}.weight`;
  const first = leaves.map((leaf) => checkpoint.tensors.get(tensorOf(0, leaf))?.shape);
  const [rows, columns] = first[0] ?? [];
  if (rows === undefined || columns === undefined) return undefined;
  let experts = 0;
  while (leaves.some((leaf) => checkpoint.tensors.has(tensorOf(experts, leaf)))) {
    for (const [index, leaf] of leaves.entries()) {
      const shape = checkpoint.tensors.get(tensorOf(experts, leaf))?.shape;
      if (shape?.join() === `${rows},${columns}`) continue;
      throw refused(
        adapter,
        `${module}.${name}`,
        `the base has "${tensorOf(experts, leaf)}" (${held[index]}) ` +
          (shape === undefined ? 'not at all' : `of another shape, [${shape.join(', ')}]`),
      );
    }
    experts++;
  }
  const pieces = (expert: number): Piece[] =>
    leaves.map((leaf, index) => {
      return { tensor: tensorOf(expert, leaf), begin: index * rows, count: rows };
    });
  const rule = `fused experts into ${leaves.join(', ')} of each expert`;
  return { name, experts, rows: rows * leaves.length, columns, pieces, rule };
}

/** Each expert has `rank` rows of A: all must be there, and the strength must be that of the rank. */
function checkRank(adapter: Adapter, { pair, parameter }: Match, { rank }: ModuleScaling): void {
  const { experts, name } = parameter;
  const rows = pair.a.shape[0];
  if (rows === experts * rank) return;
  throw new WeldlineError(
    'adapter.rank-mismatch',
    `Adapter "${adapter.id}": "${pair.module}.${name}" has factors of rank ${rows} for all experts. ` +
      `The base has ${experts} experts, and adapter_config.json gives each the rank ${rank} (r and ` +
      `rank_pattern): ${experts * rank}. Use the base it was trained on and the configuration that ` +
      'was saved with it. Nothing was written.',
  );
}

/**
 * What the parameters that are not square say: one adapter is of one version of PEFT.
 * @returns whether deltas are transposed; undefined if none says so or they disagree
 */
function observe(matches: readonly Match[]): boolean | undefined {
  const seen = new Set<boolean>();
  for (const { fits } of matches) if (fits.plain !== fits.transposed) seen.add(fits.transposed);
  return seen.size === 1 ? [...seen][0] : undefined;
}

function isTransposed(
  { adapter, names }: BlockBinding,
  { pair, parameter, fits }: Match,
  observed: boolean | undefined,
): boolean {
  if (fits.plain !== fits.transposed) return fits.transposed;
  const { square } = names.experts ?? {};
  if (square === 'transposed') return true;
  const decided = square === undefined ? undefined : (observed ?? byVersion(adapter));
  if (decided !== undefined) return decided;
  throw new WeldlineError(
    'adapter.ambiguous-orientation',
    `Adapter "${adapter.id}": "${pair.module}.${parameter.name}" is square ` +
      `([${parameter.rows}, ${parameter.columns}]), and PEFT before 0.19 stored such factors the ` +
      'other way round. Nothing here tells which: its other parameters are square too or not in the ' +
      'adapter, and adapter_config.json has no peft_version that settles it. Save the adapter again ' +
      'with the PEFT that trained it (0.18.1 or 0.19.1 and later write their version).',
  );
}

/** Source: `lora.ParamWrapper` of PEFT 0.18.1 and 0.19.1; 0.19.0 is left out, it is of neither kind. */
function byVersion({ config }: Adapter): boolean | undefined {
  const [, major, minor, patch] = /^(\d+)\.(\d+)\.(\d+)/.exec(config.peftVersion ?? '') ?? [];
  if (major === undefined) return undefined;
  const version = Number(major) * 1e6 + Number(minor) * 1e3 + Number(patch);
  if (version === 19_000) return undefined;
  return version < 19_000;
}

function place({ pair, parameter }: Match, scaling: ModuleScaling, transposed: boolean): Placed[] {
  const { experts, name, pieces, rows, rule } = parameter;
  const { rank } = scaling;
  const module = `${pair.module}.${name}`;
  const placed: Placed[] = [];
  for (let expert = 0; expert < experts; expert++) {
    const a = sliceRows(pair.a, expert * rank, rank);
    const bColumns = { begin: expert, step: experts };
    for (const { tensor, begin, count, rowBegin } of pieces(expert)) {
      const b = transposed ? pair.b : sliceRows(pair.b, begin, count);
      const delta: BlockDelta = {
        pair: { module, layer: 'linear', a, b, ...scaling },
        transposed,
        isBias: false,
        part: rowBegin === undefined ? '' : `expert ${expert}`,
        bColumns,
        ...(rowBegin === undefined ? {} : { rows: { begin: rowBegin, count } }),
        ...(transposed && count < rows ? { aColumn: begin } : {}),
      };
      placed.push({ tensor, rule, delta });
    }
  }
  return placed;
}
