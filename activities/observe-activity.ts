import { Context } from '@temporalio/activity';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { type FailureDetails, toFailure } from './failures.ts';
import { bytesOf } from './measures.ts';

type AnyActivity = (...input: never[]) => Promise<unknown>;

/**
 * What every activity does around its work: errors leave it as a Temporal failure, and each attempt
 * is logged and counted once. Inputs and results are in neither: recipes and paths may be private.
 */
export function observeActivity(activity: AnyActivity): AnyActivity {
  return async (...input) => {
    const { info, log, metricMeter } = Context.current();
    const startedAtMs = performance.now();
    const durationMs = (): number => Math.round(performance.now() - startedAtMs);
    const bytes = () => (bytesOf() === 0 ? {} : { bytes: bytesOf() });
    if (info.attempt > 1) {
      const retries = metricMeter.createCounter(
        'weldline_activity_retries',
        undefined,
        'Attempts after the first, whatever ended the one before',
      );
      retries.add(1);
    }
    log.info('Activity started');
    try {
      const result = await activity(...input);
      log.info('Activity finished', { durationMs: durationMs(), ...bytes() });
      return result;
    } catch (error) {
      const failure = toFailure(error, info.attempt);
      const facts = { durationMs: durationMs(), ...bytes() };
      if (failure instanceof CancelledFailure) log.info('Activity cancelled', facts);
      else noteFailure(failure, facts);
      throw failure;
    }
  };
}

function noteFailure(failure: Error, facts: Readonly<Record<string, number>>): void {
  const { log, metricMeter } = Context.current();
  const [details] = (failure instanceof ApplicationFailure ? (failure.details ?? []) : []) as [
    FailureDetails?,
  ];
  const code = (failure instanceof ApplicationFailure && failure.type) || 'internal.bug';
  const disposition = details?.disposition ?? 'permanent';
  const failures = metricMeter.createCounter(
    'weldline_activity_failures',
    undefined,
    'Attempts that failed, by the code of the error and what becomes of it',
  );
  failures.add(1, { code, disposition });
  log.warn('Activity failed', { code, disposition, reason: failure.message, ...facts });
}
