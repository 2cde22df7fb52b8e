import { html, type Markup } from '../markup.ts';
import { FLUID_WIDTH, figure } from './figure.ts';
import { type Form, marker, markerLegend } from './marker.ts';
import { placeLabels } from './place-labels.ts';

export interface ScatterPoint {
  readonly label: string;
  /** Average bits of a weight. */
  readonly bits: number;
  /** Nats per token, 0 or more. */
  readonly kl: number;
  readonly form: Form;
  /** Said of it when it is pointed at. */
  readonly text: string;
}

const HEIGHT = 300;
const LEFT = 54;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 44;

/** Headers make files of 16 bits a little larger: the axis need not go to 20 for them. */
const BITS_BEYOND = 0.3;

/** Below this two models are the same but for rounding; keeps 0 on a logarithmic axis. */
const KL_EXPONENT_LEAST = -5;

/** KL divergence over size: what quantizing costs, and what it saves. */
export function scatterFigure(
  points: readonly ScatterPoint[],
  legend: readonly (readonly [Form, string])[],
  data: Markup,
): Markup {
  const bitsMax = Math.max(
    8,
    Math.ceil((Math.max(...points.map(({ bits }) => bits)) - BITS_BEYOND) / 4) * 4,
  );
  const exponents = points.map(({ kl }) => Math.max(Math.log10(kl), KL_EXPONENT_LEAST));
  const low = Math.floor(Math.min(...exponents));
  const high = Math.max(low + 1, Math.ceil(Math.max(...exponents)));
  const toX = (bits: number): number => LEFT + (bits / bitsMax) * (FLUID_WIDTH - LEFT - RIGHT);
  const toY = (exponent: number): number =>
    TOP + ((high - exponent) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const placed = points.map((point, index) => ({
    ...point,
    x: toX(point.bits),
    y: toY(exponents[index] ?? low),
  }));
  const frame = { left: LEFT + 2, top: 2, right: FLUID_WIDTH - 2, bottom: HEIGHT - BOTTOM - 1 };
  const labels = placeLabels(placed, frame);
  const marks = placed.map(({ x, y, label, form, text }, index) => {
    const at = labels[index];
    if (at === undefined) return undefined;
    const width = [...label].length * 6.7;
    const near = Math.max(at.x, Math.min(at.x + width, x));
    const line = at.isFar
      ? html`<path class="lead-line" d="M${x} ${y}L${near} ${at.y - 3}"/>`
      : undefined;
    return html`<g><title>${text}</title>${line}${marker(form, x, y)}<text class="label" x="${at.x}" y="${at.y}">${label}</text></g>\n`;
  });
  const count = points.length;
  return figure(
    {
      id: 'kl-by-size',
      title: 'What quantizing changes, by size',
      description: `${count} conversions by average bits of a weight, across, and KL divergence from their 16-bit reference on a logarithmic axis, upwards. Lower left is better.`,
      width: FLUID_WIDTH,
      height: HEIGHT,
      content: html`${bitsAxis(bitsMax, toX)}${klAxis(low, high, toY)}${marks}`,
      isFluid: true,
    },
    markerLegend(legend),
    data,
  );
}

function bitsAxis(bitsMax: number, toX: (bits: number) => number): Markup {
  const step = bitsMax > 24 ? 8 : bitsMax > 8 ? 4 : 2;
  const ticks = Array.from({ length: Math.floor(bitsMax / step) + 1 }, (_, i) => i * step);
  const bottom = HEIGHT - BOTTOM;
  return html`${ticks.map(
    (bits) =>
      html`<path class="line" d="M${toX(bits)} ${TOP}V${bottom}"/><text class="tick" x="${toX(bits)}" y="${bottom + 14}" text-anchor="middle">${bits}</text>\n`,
  )}<text class="tick" x="${(LEFT + FLUID_WIDTH) / 2}" y="${bottom + 34}" text-anchor="middle">bits per weight</text>
`;
}

function klAxis(low: number, high: number, toY: (exponent: number) => number): Markup {
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  return html`${ticks.map((exponent) => {
    const y = toY(exponent);
    return html`<path class="line" d="M${LEFT} ${y}H${FLUID_WIDTH - RIGHT}"/><text class="tick" x="${LEFT - 4}" y="${y + 4}" text-anchor="end">${exponent <= KL_EXPONENT_LEAST ? '≤' : ''}${powerOfTen(exponent)}</text>\n`;
  })}<text class="tick" transform="translate(9 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">KL, nats per token</text>
`;
}

function powerOfTen(exponent: number): string {
  return exponent >= -3 ? `${Number(`1e${exponent}`)}` : `1e${exponent}`;
}
