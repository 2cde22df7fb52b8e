/** What befalls a release in one round: drawn from a seed, the same each time. */
import { Random } from '../doubles/random.ts';
import type { Shape } from './soak-world.ts';

/** What can be done to a release. */
export const FAULT_KINDS = [
  /** SIGKILL for the command that a person runs; where it works alone, it is the worker too. */
  'kill-command',
  /** SIGKILL for a worker of its own. */
  'kill-worker',
  /** SIGKILL for the Temporal server, whose database stays. */
  'kill-server',
  /** SIGKILL for a program that converts or evaluates. */
  'kill-tool',
  /** SIGTERM for command or worker. */
  'terminate',
  /** SIGSTOP, and SIGCONT after a while: to the process, the clock has jumped. */
  'freeze',
  /** Its volume has no room left for a while. */
  'disk-full',
  /** The hub fails for some requests: refuses, cuts off, damages, dawdles or falls silent. */
  'hub',
  /** So does the bucket. */
  'bucket',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

/** Places in a release that can be seen from outside, in their order. */
export const POINTS = [
  'start',
  'fetch',
  'merge',
  'seal',
  'convert',
  'evaluate',
  'publish',
  'upload',
  'alias',
  'report',
] as const;

export type Point = (typeof POINTS)[number];

export interface DrawnFault {
  readonly kind: FaultKind;
  /** It strikes this long after the point is reached; those on the network are laid out there. */
  readonly point: Point;
  readonly delayMs: number;
  /** For what there are variants of: a whole number. */
  readonly variant: number;
}

/** `alone`: the command works itself, on a server of its own. `fleet`: two workers do, it watches. */
export type Mode = 'alone' | 'fleet';

export interface DrawnRound {
  readonly shape: Shape;
  readonly mode: Mode;
  /** In the order of their points. */
  readonly faults: readonly DrawnFault[];
}

/** Of a hundred rounds; what runs models takes minutes. */
const CONVERT_SHARE = 8;
const QUALITY_SHARE = 3;
const FLEET_SHARE = 50;
const FAULTS_MAX = 4;
const DELAY_MS_MAX = 400;
/** Times as long where there is more to hit: programs run for half a minute or more. */
const STRETCH: Partial<Record<Point, number>> = { start: 5, convert: 60, evaluate: 150 };
/** Some strike in the very moment. */
const AT_ONCE_SHARE = 30;

/** How often each is drawn; what keeps a round waiting for a timeout comes more seldom. */
const WEIGHTS: Readonly<Record<FaultKind, number>> = {
  'kill-command': 4,
  'kill-worker': 4,
  'kill-server': 4,
  'kill-tool': 4,
  terminate: 3,
  freeze: 2,
  'disk-full': 2,
  hub: 2,
  bucket: 2,
};

const QUALITY_POINTS: readonly Point[] = ['convert', 'evaluate'];

/** Rounds of a seed do not depend on how many come before: one alone is the same again. */
export function roundRandom(seed: number, round: number): Random {
  const random = new Random(seed * 100_003 + round * 7_919 + 1);
  // Seeds that are near each other begin alike.
  for (let each = 0; each < 8; each++) random.next();
  return random;
}

/** @param kinds those that may be drawn */
export function drawRound(
  random: Random,
  kinds: readonly FaultKind[],
  shapes: readonly Shape[],
): DrawnRound {
  const dice = random.below(100);
  const drawn: Shape =
    dice < QUALITY_SHARE ? 'quality' : dice < QUALITY_SHARE + CONVERT_SHARE ? 'convert' : 'merge';
  const shape = shapes.includes(drawn) ? drawn : shapes[0]!;
  const mode: Mode = random.below(100) < FLEET_SHARE ? 'fleet' : 'alone';
  const possible = kinds.filter(
    (kind) =>
      !(kind === 'kill-tool' && shape === 'merge') && !(kind === 'kill-worker' && mode === 'alone'),
  );
  const count = possible.length === 0 ? 0 : 1 + random.below(FAULTS_MAX);
  const faults = Array.from({ length: count }, () => drawFault(random, possible, shape));
  const place = ({ point }: DrawnFault): number => POINTS.indexOf(point);
  return { shape, mode, faults: faults.sort((one, other) => place(one) - place(other)) };
}

function drawFault(random: Random, kinds: readonly FaultKind[], shape: Shape): DrawnFault {
  const kind = random.pick(kinds.flatMap((each) => Array<FaultKind>(WEIGHTS[each]).fill(each)));
  const points = POINTS.filter(
    (point) => shape === 'quality' || !QUALITY_POINTS.includes(point) || point === shape,
  );
  const isAtOnce = random.below(100) < AT_ONCE_SHARE;
  const delayMs = random.below(DELAY_MS_MAX);
  const point = pointOf(kind, random.pick(points), shape, random);
  return {
    kind,
    point,
    // A start is mostly Node's own, in which nothing can be hit.
    delayMs: isAtOnce && point !== 'start' ? 0 : delayMs * (STRETCH[point] ?? 1),
    variant: random.below(1 << 16),
  };
}

function pointOf(kind: FaultKind, point: Point, shape: Shape, random: Random): Point {
  if (kind === 'hub' || kind === 'bucket') return 'start';
  if (kind !== 'kill-tool') return point;
  return shape === 'convert' ? 'convert' : random.pick(QUALITY_POINTS);
}
