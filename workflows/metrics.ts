import { log, metricMeter } from '@temporalio/workflow';
import type { Stage } from './messages.ts';

/** How a stage ended, or was left. `waiting`: a person has to mend something. */
export type StageOutcome = 'done' | 'failed' | 'waiting' | 'interrupted';

/** Recorded once, not again in a replay. docs/monitoring.md says what each is good for. */
const stageSeconds = metricMeter.createHistogram(
  'weldline_stage_duration',
  'float',
  'seconds',
  'Time that a stage of a release took, waiting for people not counted',
);
const gateDecisions = metricMeter.createCounter(
  'weldline_gate_decisions',
  undefined,
  'Artefacts that the gate let pass or refused',
);
const releases = metricMeter.createCounter('weldline_releases', undefined, 'Releases that ended');

export function stageEnded(stage: Stage, outcome: StageOutcome, durationMs: number): void {
  stageSeconds.record(durationMs / 1000, { stage, outcome });
  log.info('Stage ended', { stage, outcome, durationMs });
}

export function gateDecided(passed: number, refused: number): void {
  if (passed > 0) gateDecisions.add(passed, { decision: 'passed' });
  if (refused > 0) gateDecisions.add(refused, { decision: 'refused' });
}

export function releaseEnded(outcome: 'released' | 'failed' | 'cancelled'): void {
  releases.add(1, { outcome });
  log.info('Release ended', { outcome });
}
