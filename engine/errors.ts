/**
 * The one error class of weldline and the list of everything that can go wrong.
 *
 * A code is `area.problem`. The message says what, where and what to do; the code is what programs
 * match on, because `instanceof` does not survive the Temporal workflow sandbox. Whether a code may
 * be retried is decided in `activities/failures.ts`, nowhere else.
 */

export const ERROR_CODES = [
  // safetensors files
  'safetensors.too-short',
  'safetensors.git-lfs-pointer',
  'safetensors.pickle',
  'safetensors.header-too-large',
  'safetensors.header-truncated',
  'safetensors.header-not-utf8',
  'safetensors.header-not-json',
  'safetensors.header-bad-start',
  'safetensors.duplicate-key',
  'safetensors.bad-metadata',
  'safetensors.bad-entry',
  'safetensors.bad-name',
  'safetensors.too-many-tensors',
  'safetensors.unknown-dtype',
  'safetensors.bad-shape',
  'safetensors.bad-offsets',
  'safetensors.size-mismatch',
  'safetensors.overlap',
  'safetensors.gap',
  'safetensors.truncated',
  'safetensors.trailing-bytes',
  // checkpoint directories
  'checkpoint.no-weights',
  'checkpoint.pickle-only',
  'checkpoint.training-shards',
  'checkpoint.index-not-json',
  'checkpoint.index-invalid',
  'checkpoint.index-unsafe-path',
  'checkpoint.index-missing-file',
  'checkpoint.index-missing-tensor',
  'checkpoint.index-unlisted-tensor',
  'checkpoint.duplicate-tensor',
  'checkpoint.too-many-files',
  'checkpoint.config-missing',
  'checkpoint.config-invalid',
  'checkpoint.quantized-base',
  'checkpoint.bad-quantization',
  'checkpoint.unsupported-dtype',
  // adapters
  'adapter.config-missing',
  'adapter.config-invalid',
  'adapter.unsupported-type',
  'adapter.unsupported-feature',
  'adapter.weights-missing',
  'adapter.pickle',
  'adapter.pickle-unsafe',
  'adapter.pickle-damaged',
  'adapter.training-shards',
  'adapter.bad-alpha',
  'adapter.chain',
  'adapter.other-base',
  'adapter.empty',
  'adapter.empty-tensor',
  'adapter.unknown-key',
  'adapter.duplicate-key',
  'adapter.half-pair',
  'adapter.bad-shape',
  'adapter.rank-mismatch',
  'adapter.bad-dtype',
  'adapter.bad-pattern',
  'adapter.non-finite',
  'adapter.unbound-tensor',
  'adapter.ambiguous-binding',
  'adapter.ambiguous-orientation',
  'adapter.shape-mismatch',
  'adapter.target-without-tensors',
  'adapter.tokenizer-mismatch',
  'adapter.contradiction',
  'adapter.quantized-training',
  // plan and merge
  'plan.invalid',
  'plan.option-invalid',
  'plan.budget-too-small',
  'merge.non-finite',
  'merge.input-changed',
  'merge.worker-crashed',
  'journal.invalid',
  'kernel.missing',
  // output and disk
  'output.exists',
  'output.inside-input',
  'output.not-writable',
  'disk.full',
  'disk.reserved',
  'disk.read-failed',
  'disk.write-failed',
  'side-file.unsafe',
  'manifest.invalid',
  'verify.digest-mismatch',
  'verify.inventory-mismatch',
  'verify.non-finite',
  'verify.recomputation-mismatch',
  'verify.other-engine',
  'verify.other-plan',
  'verify.input-missing',
  // recipes, settings and the command
  'recipe.not-found',
  'recipe.syntax',
  'recipe.invalid',
  'recipe.secret',
  'config.invalid',
  'cli.usage',
  // sources
  'source.unsupported-scheme',
  'source.not-found',
  'source.out-of-range',
  'source.invalid-reference',
  'source.unauthorized',
  'source.unavailable',
  'source.changed',
  'source.digest-mismatch',
  'hub.not-found',
  'hub.unauthorized',
  'hub.gated',
  'hub.rate-limited',
  'hub.unavailable',
  'hub.stalled',
  'hub.bad-response',
  'hub.digest-mismatch',
  'hub.unsafe-path',
  'hub.file-changed',
  // tools and the Temporal server
  'tool.not-found',
  'tool.failed',
  'tool.stalled',
  'tool.killed',
  'tool.install-failed',
  'tool.wrong-version',
  'temporal.unreachable',
  'temporal.unauthorized',
  'temporal.namespace-not-found',
  'temporal.start-failed',
  'temporal.worker-failed',
  'payload.key-missing',
  'payload.damaged',
  'release.not-found',
  'release.already-running',
  'release.failed',
  'release.cancelled',
  'release.not-waiting',
  'release.refused',
  'release.approval-required',
  'release.timed-out',
  'schedule.not-found',
  'schedule.exists',
  'gate.failed',
  // conversions
  'convert.needs-imatrix',
  'convert.missing',
  'convert.imatrix-invalid',
  'convert.check-failed',
  'convert.bad-calibration',
  'convert.bad-group-size',
  'convert.bad-ignore',
  'convert.unsupported-architecture',
  'convert.unsupported-tokenizer',
  'convert.unsupported-model',
  'convert.tokenizer-missing',
  'convert.vocabulary-mismatch',
  'convert.adapter-unsupported',
  'convert.source-damaged',
  // publishing
  'publish.conflict',
  'publish.not-writable',
  'publish.unauthorized',
  'publish.not-found',
  'publish.unavailable',
  'publish.rate-limited',
  'publish.rejected',
  'publish.verify-failed',
  'publish.source-changed',
  'publish.aliased',
  'publish.alias-moved',
  // signatures, provenance, bills of materials
  'attest.key-invalid',
  'attest.no-identity',
  'attest.unavailable',
  'attest.signature-invalid',
  'attest.not-covered',
  'attest.unsupported',
  'attest.document-invalid',
  // evaluation
  'evaluate.suite-invalid',
  'evaluate.template-failed',
  'evaluate.adapter-unsupported',
  'evaluate.base-unsupported',
  'evaluate.runner-failed',
  'evaluate.endpoint-failed',
  'evaluate.distributions-damaged',
  'evaluate.reference-missing',
  'evaluate.not-comparable',
  'evaluate.not-finite',
  'evaluate.text-too-short',
  'evaluate.pattern-too-slow',
  'internal.bug',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** Facts about an error for `--json` and logs; never secrets, never tensors. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface WeldlineErrorOptions {
  cause?: unknown;
  details?: ErrorDetails;
}

export class WeldlineError extends Error {
  override readonly name = 'WeldlineError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  /**
   * @param code what went wrong, for programs
   * @param message what, where and what to do, for people: one or a few sentences
   */
  constructor(code: ErrorCode, message: string, options: WeldlineErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && (ERROR_CODES as readonly string[]).includes(value);
}

/** The code of an operating-system error (`ENOSPC`, `EACCES`, …), if `error` is one. */
export function systemErrorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/** A programmer error: a state that no input can bring about. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new WeldlineError('internal.bug', `This is a bug in weldline: ${message}`);
}
