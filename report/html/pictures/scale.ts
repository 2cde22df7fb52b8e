/** How a figure is shown in a cell: a class that colours it, and a text that says it. */
export interface Scale {
  /** Ascending. */
  readonly steps: readonly ScaleStep[];
  /** To the digits that are shown, so that no cell has the colour of another step than its text. */
  readonly round: (value: number) => number;
  /** In a cell, where there is room for four or five characters. */
  readonly toCell: (value: number) => string;
  /** In the table. */
  readonly toText: (value: number) => string;
}

export interface ScaleStep {
  /** Values below this, and not of an earlier step. */
  readonly below: number;
  /** `cool-0` to `cool-5` for more and more of something, `warm-…` for what needs attention. */
  readonly className: string;
  readonly label: string;
}

export function stepOf({ steps, round }: Scale, value: number): ScaleStep {
  const rounded = round(value);
  const step = steps.find(({ below }) => rounded < below) ?? steps.at(-1);
  if (step === undefined) throw new RangeError('a scale without steps');
  return step;
}

const twoDigits = (value: number): number => Number(value.toPrecision(2));

const percentNumber = (share: number): string => {
  const percents = 100 * share;
  if (percents < 0.01) return percents === 0 ? '0' : '<.01';
  return percents < 99.5 ? percents.toPrecision(2) : percents.toFixed(0);
};

/** Of `‖d‖ / ‖W‖`: warnings for several adapters begin at 10 %. */
export const SIZE_SCALE: Scale = {
  steps: [
    { below: 0.001, className: 'cool-0', label: 'under 0.1 %' },
    { below: 0.003, className: 'cool-1', label: '0.1 to 0.3 %' },
    { below: 0.01, className: 'cool-2', label: '0.3 to 1 %' },
    { below: 0.03, className: 'cool-3', label: '1 to 3 %' },
    { below: 0.1, className: 'cool-4', label: '3 to 10 %' },
    { below: Number.POSITIVE_INFINITY, className: 'cool-5', label: '10 % and more' },
  ],
  round: twoDigits,
  toCell: percentNumber,
  toText: (value) => `${percentNumber(value)} %`,
};

/** 57 % are 56.99999999999999 in a float64. */
const FLOAT_ERROR = 1e-9;

/**
 * In percents, rounded down: never 100 for a share that is not all. What rounding took more than all
 * of has nothing left.
 */
const retained = (share: number): number => {
  const percents = 100 * Math.max(0, Math.min(1, share));
  const digits = percents >= 99 || percents < 10 ? 10 : 1;
  const floor = Math.floor(digits * percents + FLOAT_ERROR) / digits;
  return share < 1 ? Math.min(99.9, floor) : floor;
};

/** Of what survives rounding: a tensor is warned of below 25 %, a model below 50 %. */
export const RETENTION_SCALE: Scale = {
  steps: [
    { below: 0.25, className: 'warm-5', label: 'under 25 %' },
    { below: 0.5, className: 'warm-4', label: '25 to 50 %' },
    { below: 0.75, className: 'warm-3', label: '50 to 75 %' },
    { below: 0.9, className: 'warm-2', label: '75 to 90 %' },
    { below: 0.99, className: 'warm-1', label: '90 to 99 %' },
    { below: Number.POSITIVE_INFINITY, className: 'warm-0', label: '99 % and more' },
  ],
  round: (share) => Math.min(1, retained(share) / 100),
  toCell: (share) => `${retained(share)}`,
  toText: (share) => `${retained(share)} %`,
};

/** Of `‖Q(W) − W‖ / ‖W‖`: four bits in groups of 128 come to about 10 %. */
export const ERROR_SCALE: Scale = {
  steps: [
    { below: 0.02, className: 'warm-0', label: 'under 2 %' },
    { below: 0.05, className: 'warm-1', label: '2 to 5 %' },
    { below: 0.1, className: 'warm-2', label: '5 to 10 %' },
    { below: 0.15, className: 'warm-3', label: '10 to 15 %' },
    { below: 0.25, className: 'warm-4', label: '15 to 25 %' },
    { below: Number.POSITIVE_INFINITY, className: 'warm-5', label: '25 % and more' },
  ],
  round: twoDigits,
  toCell: percentNumber,
  toText: (value) => `${percentNumber(value)} %`,
};

const cosineText = (value: number): string => {
  const text = value.toFixed(2);
  return (text === '-0.00' ? '0.00' : text).replace('-', '−');
};

/** Of cosines: a model is warned of at −0.1 and 0.7, a layer at −0.2. */
export const COSINE_SCALE: Scale = {
  steps: [
    { below: -0.5, className: 'warm-5', label: 'under −0.5: opposed' },
    { below: -0.2, className: 'warm-4', label: '−0.5 to −0.2' },
    { below: -0.1, className: 'warm-2', label: '−0.2 to −0.1' },
    { below: 0.1, className: 'cool-0', label: '−0.1 to 0.1: unrelated' },
    { below: 0.3, className: 'cool-2', label: '0.1 to 0.3' },
    { below: 0.7, className: 'cool-4', label: '0.3 to 0.7' },
    { below: Number.POSITIVE_INFINITY, className: 'cool-5', label: '0.7 and more: alike' },
  ],
  round: (value) => Number(value.toFixed(2)),
  toCell: cosineText,
  toText: cosineText,
};
