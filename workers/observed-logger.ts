import { DefaultLogger, type Logger, type LogLevel, type LogMetadata } from '@temporalio/worker';
import { formatEntry } from './logger.ts';
import { appendToReleaseLog, releaseOf } from './release-logs.ts';
import { stageOf } from './stage-of.ts';

export interface LogContext {
  readonly home: string;
  /** Name of this host. */
  readonly host: string;
}

/**
 * A logger of workers: each entry says which release, stage, activity, attempt and host it is of, and
 * what belongs to a release goes into the log of that release too, at every level from INFO.
 */
export function observedLogger(logger: Logger, { home, host }: LogContext): Logger {
  const releases = new DefaultLogger('INFO', (entry) => {
    const { release } = entry.meta ?? {};
    if (typeof release === 'string') appendToReleaseLog(home, release, formatEntry(entry));
  });
  const log = (level: LogLevel, message: string, meta?: LogMetadata): void => {
    if (isRepeated(message, meta)) return;
    const fields = { ...logFields(meta ?? {}), host };
    logger.log(level, message, fields);
    releases.log(level, message, fields);
  };
  return {
    log,
    trace: (message, meta) => log('TRACE', message, meta),
    debug: (message, meta) => log('DEBUG', message, meta),
    info: (message, meta) => log('INFO', message, meta),
    warn: (message, meta) => log('WARN', message, meta),
    error: (message, meta) => log('ERROR', message, meta),
  };
}

/** The SDK tells the same of activities as weldline, without codes and bytes. */
function isRepeated(message: string, meta: LogMetadata | undefined): boolean {
  return (
    meta?.['sdkComponent'] === 'worker' && /^Activity (started|completed|failed)/.test(message)
  );
}

/** The SDK's names as those of weldline; what only the SDK needs is left out. */
function logFields(meta: LogMetadata): LogMetadata {
  const { workflowId, activityType, attempt, workflowRunId, runId, stage, message, ...rest } = meta;
  for (const name of ['namespace', 'taskToken', 'sdkComponent', 'isLocal', 'activityId']) {
    delete rest[name];
  }
  const activity = typeof activityType === 'string' ? activityType : undefined;
  const of = stage ?? (activity === undefined ? undefined : stageOf(activity));
  return {
    ...(typeof workflowId === 'string' && { release: releaseOf(workflowId) }),
    ...(of !== undefined && { stage: of }),
    ...(activity !== undefined && { activity, attempt }),
    ...((workflowRunId ?? runId) !== undefined && { run: workflowRunId ?? runId }),
    // An entry has a message of its own.
    ...(message !== undefined && { reason: message }),
    ...rest,
  };
}
