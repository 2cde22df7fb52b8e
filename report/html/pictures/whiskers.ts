import type { Interval } from '../../../evaluation/gate-decision.ts';
import { formatPercent } from '../../figures.ts';
import { formatInterval } from '../../wording.ts';
import { cut, html, type Markup } from '../markup.ts';
import { FLUID_WIDTH, figure } from './figure.ts';
import { type Form, marker } from './marker.ts';

export interface WhiskerRow {
  readonly label: string;
  readonly form: Form;
  /** Of a share, 0 to 1. */
  readonly interval: Interval;
  /** Whether others are compared with it: a line goes through all rows there. */
  readonly isReference: boolean;
}

const ROW_HEIGHT = 36;
/** Half of `0 %` stands left of the axis. */
const LEFT = 12;
/** Room for the score in digits. */
const RIGHT = 60;
const AXIS_HEIGHT = 22;
const LABEL_CHARACTERS_MAX = 46;

const toX = (share: number): number => LEFT + share * (FLUID_WIDTH - LEFT - RIGHT);

/** Scores on one suite with their intervals, one below the other on one axis. */
export function whiskerFigure(
  id: string,
  title: string,
  rows: readonly WhiskerRow[],
  legend: Markup,
  data: Markup,
): Markup {
  const bottom = rows.length * ROW_HEIGHT + 4;
  const lines = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      html`<path class="line" d="M${toX(share)} 0V${bottom}"/><text class="tick" x="${toX(share)}" y="${bottom + 15}" text-anchor="middle">${formatPercent(share).replace('.0', '')}</text>\n`,
  );
  const references = rows
    .filter(({ isReference }) => isReference)
    .map(
      ({ interval }) => html`<path class="reference" d="M${toX(interval.value)} 0V${bottom}"/>\n`,
    );
  const marks = rows.map((row, index) => whisker(row, index * ROW_HEIGHT));
  return figure(
    {
      id,
      title,
      description: rows.map(inWords).join('; '),
      width: FLUID_WIDTH,
      height: bottom + AXIS_HEIGHT,
      content: html`${lines}${references}${marks}`,
      isFluid: true,
    },
    legend,
    data,
  );
}

function whisker({ label, form, interval }: WhiskerRow, top: number): Markup {
  const { value, low, high } = interval;
  const y = top + 26;
  return html`<g><title>${inWords({ label, interval })}</title><text class="label" x="0" y="${top + 14}">${cut(label, LABEL_CHARACTERS_MAX)}</text><text class="value" x="${FLUID_WIDTH}" y="${y + 4}" text-anchor="end">${formatPercent(value)}</text><path class="whisker" d="M${toX(low)} ${y}H${toX(high)}M${toX(low)} ${y - 4}v8M${toX(high)} ${y - 4}v8"/>${marker(form, toX(value), y)}</g>
`;
}

function inWords({ label, interval }: Pick<WhiskerRow, 'label' | 'interval'>): string {
  return `${label} ${formatInterval(interval)}`;
}
