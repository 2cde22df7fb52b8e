import { counted, formatDuration, formatTime } from '../../figures.ts';
import type { StageTime } from '../../report-facts.ts';
import { cut, html, type Markup } from '../markup.ts';
import { outside, table } from '../table.ts';
import { FLUID_WIDTH, figure } from './figure.ts';

const ROW_HEIGHT = 30;
const BAR_HEIGHT = 7;
const MARGIN = 2;

/** When each stage ran: bars on one axis of time. */
export function timelineFigure(stages: readonly StageTime[]): Markup {
  const begin = Math.min(...stages.map(({ startedAtMs }) => startedAtMs));
  const end = Math.max(
    ...stages.map(({ startedAtMs, finishedAtMs }) => finishedAtMs ?? startedAtMs),
  );
  const span = Math.max(1, end - begin);
  const toX = (ms: number): number => MARGIN + ((ms - begin) / span) * (FLUID_WIDTH - 2 * MARGIN);
  const bars = stages.map(({ stage, startedAtMs, finishedAtMs }, index) => {
    const y = index * ROW_HEIGHT;
    const width = Math.max(1.5, toX(finishedAtMs ?? startedAtMs) - toX(startedAtMs));
    const x = Math.min(toX(startedAtMs), FLUID_WIDTH - MARGIN - width);
    return html`<text class="label" x="${MARGIN}" y="${y + 13}">${cut(stage, 34)}</text><text class="value" x="${FLUID_WIDTH - MARGIN}" y="${y + 13}" text-anchor="end">${durationOf({ startedAtMs, finishedAtMs })}</text><rect class="track" x="${MARGIN}" y="${y + 18}" width="${FLUID_WIDTH - 2 * MARGIN}" height="${BAR_HEIGHT}"/><rect class="bar" x="${x}" y="${y + 18}" width="${width}" height="${BAR_HEIGHT}"/>
`;
  });
  return figure(
    {
      id: 'stages',
      title: `${counted(stages.length, 'stage')} in ${formatDuration(span)}`,
      description: stages.map((each) => `${each.stage} ${durationOf(each)}`).join('; '),
      width: FLUID_WIDTH,
      height: stages.length * ROW_HEIGHT,
      content: bars,
      isFluid: true,
    },
    undefined,
    table(
      'Stages',
      [
        { label: 'stage' },
        { label: 'began', kind: 'number' },
        { label: 'after', kind: 'number' },
        { label: 'took', kind: 'number' },
      ],
      stages.map((each) => [
        outside(each.stage),
        formatTime(each.startedAtMs),
        formatDuration(each.startedAtMs - begin),
        durationOf(each),
      ]),
    ),
  );
}

function durationOf({
  startedAtMs,
  finishedAtMs,
}: Pick<StageTime, 'startedAtMs'> & { readonly finishedAtMs?: number | undefined }): string {
  return finishedAtMs === undefined ? 'not finished' : formatDuration(finishedAtMs - startedAtMs);
}
