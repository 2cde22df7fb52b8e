import type { QualityPlan } from '../activities/quality-types.ts';
import {
  describeConflicts,
  describeRetention,
  describeSize,
  formatRatio,
  formatShare,
} from '../engine/insight/describe-insight.ts';
import { type MergeInsight, summaryOf } from '../engine/insight/measure-merge.ts';
import { summarizeRetention, type TensorRetention } from '../engine/insight/retention.ts';
import { type TensorWork, workOf } from '../engine/merge/tensor-work.ts';
import { OVERHEAD_BYTES, outputBytes } from '../engine/plan/disk-space.ts';
import {
  type CombinedDeltas,
  type ConfigEdit,
  type Plan,
  type PlannedDelta,
  type PlannedTensor,
  planDigest,
  type TensorSource,
} from '../engine/plan/plan.ts';
import type { KernelKind } from '../kernels/index.ts';
import { formatBytes, formatTable } from './format.ts';
import type { PreparedMerge } from './merge-inputs.ts';
import type { Output } from './output.ts';
import { printQuality } from './plan-quality.ts';

const KERNELS: Readonly<Record<KernelKind, string>> = {
  native: 'native code',
  wasm: 'WebAssembly',
  scalar: 'JavaScript, very slow: this runtime has no WebAssembly SIMD',
};

const WORDS: Readonly<Record<TensorWork, string>> = {
  copy: 'copied',
  cast: 'cast',
  dequantize: 'dequantized',
  delta: 'merged',
  band: 'merged',
};

const WORK_ORDER = [WORDS.delta, WORDS.dequantize, WORDS.cast, WORDS.copy];

export interface PrintedPlan extends PreparedMerge {
  readonly complete: Plan | undefined;
  /** What merges on this machine. */
  readonly kernel: KernelKind;
  readonly withTensors: boolean;
  readonly insight: MergeInsight;
  /** What is made of the merge and judged, if a recipe asks for it. */
  readonly quality?: QualityPlan | undefined;
}

/** Prints a plan for people, or for scripts. */
export function printPlan(printed: PrintedPlan, output: Output): void {
  const { preview, complete, unreadBytes, resources, roots, kernel, withTensors } = printed;
  const { insight } = printed;
  const plan = complete ?? preview;
  const digest = complete && planDigest(complete);
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const summary = WORK_ORDER.flatMap((work) => {
    const chosen = tensors.filter((tensor) => WORDS[workOf(tensor)] === work);
    if (work === WORDS.dequantize && chosen.length === 0) return [];
    const bytes = chosen.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    return [{ work, tensors: chosen.length, bytes }];
  });
  const replaced = tensors.filter((tensor) => tensor.from.input !== 'base').length;

  output.line(
    digest === undefined
      ? `plan digest: not computed (${formatBytes(unreadBytes)} unread; --digest computes it)`
      : `plan ${digest}`,
  );
  output.line();
  output.line(
    formatTable(summary.map((s) => [s.work, `${s.tensors} tensors`, formatBytes(s.bytes)])),
  );
  if (replaced > 0) output.line(`${replaced} tensors are replaced by an adapter's own`);
  output.line();
  output.line(
    formatTable([
      ['shards', String(plan.shards.length)],
      ['disk', `${formatBytes(outputBytes(plan) + OVERHEAD_BYTES)} must be free for a merge`],
      ['memory', `${formatBytes(resources.memoryBytes)} at most`],
      ['threads', `${resources.threads}, windows of ${formatBytes(resources.windowBytes)}`],
      ['kernel', KERNELS[kernel]],
      ['retention', retentionOf(insight)],
      ...sizeRows(insight),
      ...distanceRows(plan),
      ['binding', plan.rules.map(describeRule).join(', ')],
      ...plan.configEdits.map((edit) => ['config', describeEdit(edit)]),
      ['beside', plan.sideFiles.map((file) => file.path).join(', ')],
      ...Object.entries(roots).map(([id, root]) => [id, root]),
    ]),
  );
  printConflicts(insight, output);
  if (withTensors) {
    const retained = new Map(insight.retention?.tensors.map((each) => [each.name, each]));
    output.line();
    output.line(
      formatTable(tensors.map((each) => [...tensorRow(each), retainedOf(retained.get(each.name))])),
    );
  }
  const { quality } = printed;
  if (quality !== undefined) printQuality(quality, output);
  const warnings = [...plan.warnings, ...insight.warnings, ...(quality?.warnings ?? [])];
  for (const warning of warnings) output.warn(warning);
  output.result({
    plan: digest ?? null,
    unreadBytes: digest === undefined ? unreadBytes : 0,
    summary,
    replaced,
    diskBytes: outputBytes(plan) + OVERHEAD_BYTES,
    memoryBytes: resources.memoryBytes,
    threads: resources.threads,
    windowBytes: resources.windowBytes,
    kernel,
    rules: plan.rules,
    configEdits: plan.configEdits,
    sideFiles: plan.sideFiles,
    shards: plan.shards.map(({ file, size, tensors: list }) => ({
      file,
      size,
      tensors: list.length,
    })),
    warnings,
    ...(plan.nf4Distance && { nf4Distance: plan.nf4Distance }),
    ...insightOf(insight, withTensors),
    ...(quality && { conversions: quality.conversions, candidates: quality.candidates }),
    ...(withTensors ? { tensors } : {}),
  });
}

/** Figures of single tensors only where they were asked for. */
function insightOf(insight: MergeInsight, withTensors: boolean) {
  const { retention, conflicts } = summaryOf(insight);
  const tensorsOf = (report: { readonly tensors: unknown } | null) =>
    withTensors && report !== null ? { tensors: report.tensors } : {};
  return {
    retention: retention && { ...retention, ...tensorsOf(insight.retention) },
    conflicts: conflicts && { ...conflicts, ...tensorsOf(insight.conflicts) },
  };
}

function retentionOf({ retention }: MergeInsight): string {
  if (retention !== null) return describeRetention(summarizeRetention(retention));
  return 'not measured: the base is on a hub (--retention reads some rows of it)';
}

function sizeRows({ retention }: MergeInsight): string[][] {
  const size = retention && describeSize(summarizeRetention(retention));
  return size ? [['size', size]] : [];
}

function retainedOf(tensor: TensorRetention | undefined): string {
  return tensor === undefined
    ? ''
    : `retention ${formatShare(tensor.retention)}, size ${formatRatio(tensor.relativeSize)}`;
}

/** What several adapters add, and how they agree. */
function printConflicts({ conflicts }: MergeInsight, output: Output): void {
  if (conflicts === null) return;
  output.line();
  output.line(
    formatTable(
      conflicts.adapters.map(({ id, tensors, norm }) => [
        id,
        `adds to ${tensors} tensors`,
        `norm ${norm.toPrecision(3)}`,
      ]),
    ),
  );
  for (const line of describeConflicts(conflicts)) output.line(line);
}

function describeRule({ adapter, rule, format }: Plan['rules'][number]): string {
  return `${adapter}: ${rule}${format === undefined ? '' : ` (format ${format})`}`;
}

/** How far apart the choices of what is merged onto are, on a 16-bit base. */
function distanceRows({ nf4Distance: distance }: Pick<Plan, 'nf4Distance'>): string[][] {
  if (distance === undefined) return [];
  const { relative, tensors, values } = distance;
  const sampled = `measured on ${values} values of ${tensors} weights`;
  return [['base, NF4', `${(100 * relative).toFixed(2)} % of the norm apart, ${sampled}`]];
}

function describeEdit({ path, value }: ConfigEdit): string {
  const name = path.join('.');
  if (value === null) return `${name} is removed`;
  return `${name} becomes ${Array.isArray(value) ? `${value.length} × ${value[0]}` : value}`;
}

function tensorRow(tensor: PlannedTensor): string[] {
  const { tokens, combined, combination } = tensor;
  const deltas = tensor.deltas ?? [];
  const how = [
    ...(combination ? [combination.method] : []),
    ...deltas.flatMap((delta, index) => [
      ...(deltas.length > 1 ? [delta.adapter] : []),
      `r ${delta.rank}`,
      `alpha ${delta.alpha}`,
      `× ${delta.scaling}`,
      ...(delta.transposed ? ['transposed'] : []),
      ...describePart(combination?.parts[index]),
      ...(delta.magnitude ? ['scaled (DoRA)'] : []),
      ...(delta.rows ? [`rows ${delta.rows.begin} to ${lastRow(delta.rows)}`] : []),
      ...(delta.bColumns ? [`expert ${delta.bColumns.begin} of ${delta.bColumns.step}`] : []),
    ]),
    ...(combined ? [describeCombined(combined)] : []),
    ...(tensor.changes ?? []).map(({ adapter, kind }) => `${kind} of ${adapter}`),
    ...(tokens ?? []).map(({ from, indices }) => `${indices.length} rows from ${from.input}`),
  ];
  return [
    WORDS[workOf(tensor)],
    tensor.name,
    tensor.dtype,
    `[${tensor.shape.join(', ')}]`,
    describeSource(tensor.from),
    how.join(', '),
  ];
}

function describePart(
  part: { readonly weight: number; readonly density: number } | undefined,
): string[] {
  return part === undefined ? [] : [`weight ${part.weight}`, `density ${part.density}`];
}

function describeCombined({ method, rank, density }: CombinedDeltas): string {
  const kept = density === undefined ? '' : `, density ${density}`;
  return `combined by ${method} to r ${rank}${kept}`;
}

function lastRow({ begin, count }: NonNullable<PlannedDelta['rows']>): number {
  return begin + count - 1;
}

function describeSource({ input, quantization }: TensorSource): string {
  if (quantization?.scheme === 'simulated_nf4') return 'as NF4 would make it';
  if (quantization !== undefined) return `dequantized from ${quantization.scheme}`;
  return input === 'base' ? '' : `from ${input}`;
}
