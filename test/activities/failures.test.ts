import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { describe, expect, it } from 'vitest';
import { dispositionOf, type FailureDetails, toFailure } from '../../activities/failures.ts';
import { ERROR_CODES, type ErrorCode, WeldlineError } from '../../engine/errors.ts';
import { KernelMissingError } from '../../kernels/index.ts';

describe('what becomes of a failure', () => {
  it.each(ERROR_CODES)('%s crosses into the workflow with its code and disposition', (code) => {
    const failure = toFailure(new WeldlineError(code, 'what, where and what to do'));
    expect(failure).toBeInstanceOf(ApplicationFailure);
    const { type, message, nonRetryable, details } = failure as ApplicationFailure;
    const disposition = dispositionOf(code);
    expect({ type, message }).toEqual({ type: code, message: 'what, where and what to do' });
    expect(nonRetryable).toBe(disposition !== 'retry');
    expect(details).toEqual([{ disposition } satisfies FailureDetails]);
  });

  it('is permanent for everything that follows from the inputs', () => {
    const permanent = ERROR_CODES.filter((code) => dispositionOf(code) === 'permanent');
    const areas = ['safetensors', 'checkpoint', 'adapter', 'recipe', 'plan', 'verify', 'side-file'];
    for (const code of ERROR_CODES) {
      if (areas.includes(code.split('.')[0] ?? '')) expect(permanent, code).toContain(code);
    }
    expect(permanent).toContain('merge.non-finite');
    expect(permanent).toContain('publish.conflict');
    expect(permanent).toContain('internal.bug');
  });

  it.each([
    'disk.full',
    'hub.unauthorized',
    'hub.gated',
    'publish.not-writable',
    'output.not-writable',
  ] as const)('%s waits for a person', (code) => {
    expect(dispositionOf(code)).toBe('mend');
  });

  it.each([
    'hub.unavailable',
    'hub.rate-limited',
    'hub.stalled',
    'hub.digest-mismatch',
    'disk.read-failed',
  ] as const)('%s may pass by itself', (code) => {
    expect(dispositionOf(code)).toBe('retry');
  });

  it('names what has no code a bug and does not try it again', () => {
    for (const thrown of [new TypeError('x is not a function'), 'a string', undefined, null]) {
      const failure = toFailure(thrown) as ApplicationFailure;
      expect(failure.type).toBe('internal.bug');
      expect(failure.nonRetryable).toBe(true);
      expect(failure.message).toContain('bug in weldline');
    }
  });

  it.each([
    [{ code: 'ENOSPC', syscall: 'write' }, 'disk.full', 'mend'],
    [{ code: 'EDQUOT', path: '/data/x' }, 'disk.full', 'mend'],
    [{ code: 'EROFS', path: '/data/x' }, 'output.not-writable', 'mend'],
    [{ code: 'EIO', syscall: 'read' }, 'disk.write-failed', 'retry'],
    [{ code: 'EMFILE', path: '/data/x' }, 'disk.write-failed', 'retry'],
    [{ code: 'ENOENT', path: '/data/x' }, 'source.not-found', 'permanent'],
    [{ code: 'EACCES', syscall: 'connect' }, 'internal.bug', 'permanent'],
    [{ code: 'EBADF', path: '/data/x' }, 'internal.bug', 'permanent'],
  ] as const)('knows %j from a bug, wherever it was thrown', (facts, code, disposition) => {
    const failure = toFailure(Object.assign(new Error(facts.code), facts)) as ApplicationFailure;
    expect(failure.type).toBe(code);
    expect(failure.details).toEqual([{ disposition }]);
    if ('path' in facts && code !== 'internal.bug') expect(failure.message).toContain(facts.path);
  });

  it('asks a person about a program that hung twice, and about any other that failed at once', () => {
    const failing = (code: ErrorCode, attempt: number) =>
      (toFailure(new WeldlineError(code, 'x'), attempt) as ApplicationFailure).nonRetryable;
    expect(failing('tool.stalled', 1)).toBe(false);
    expect(failing('tool.stalled', 2)).toBe(true);
    expect(failing('tool.failed', 1)).toBe(true);
    expect(failing('hub.stalled', 40)).toBe(false);
    expect(failing('publish.verify-failed', 2)).toBe(false);
    expect(failing('publish.verify-failed', 3)).toBe(true);
  });

  it('waits for a person where the kernel was never built', () => {
    const failure = toFailure(
      new KernelMissingError('run npm run build:kernel'),
    ) as ApplicationFailure;
    expect(failure).toMatchObject({ type: 'kernel.missing', nonRetryable: true });
    expect(failure.details).toEqual([{ disposition: 'mend' }]);
  });

  it('lets failures of Temporal pass as they are', () => {
    const cancelled = new CancelledFailure('cancelled');
    const own = ApplicationFailure.create({ type: 'x' });
    expect(toFailure(cancelled)).toBe(cancelled);
    expect(toFailure(own)).toBe(own);
  });
});
