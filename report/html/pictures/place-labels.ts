export interface LabelledPoint {
  readonly x: number;
  readonly y: number;
  readonly label: string;
}

export interface PlacedLabel {
  /** Left end and baseline. */
  readonly x: number;
  readonly y: number;
  /** Whether it stands so far off that a line must lead to its point. */
  readonly isFar: boolean;
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** Of the labels' font, 11 pixels high: an upper bound for letters, digits and `-`. */
const CHARACTER_WIDTH = 6.7;
const HEIGHT = 12;
const RADIUS = 6;
/** Rings around a point on which its label is tried, from near to far. */
const RINGS = [0, 12, 26, 40, 56, 74, 94];

/**
 * Finds a place for the label of each point so that no label lies on another, on a point, or beyond
 * the frame, as long as there is one. Deterministic: points that have the least room are first.
 *
 * @param frame in which labels must stay
 */
export function placeLabels(points: readonly LabelledPoint[], frame: Box): readonly PlacedLabel[] {
  const taken: Box[] = points.map(({ x, y }) => around(x, y));
  const placed = new Map<number, PlacedLabel>();
  const order = points
    .map((point, index) => ({ index, crowd: crowdAround(point, points) }))
    .sort((one, other) => other.crowd - one.crowd || one.index - other.index);
  for (const { index } of order) {
    const point = points[index];
    if (point === undefined) continue;
    const width = [...point.label].length * CHARACTER_WIDTH;
    const isFree = ({ box }: Try): boolean =>
      isInside(box, frame) && taken.every((other) => !overlap(box, other));
    const tries = placesOf(point, width);
    const chosen =
      tries.find(isFree) ?? placesAnywhere(point, width, frame).find(isFree) ?? tries[0];
    if (chosen === undefined) continue;
    taken.push(chosen.box);
    placed.set(index, { x: chosen.box.left, y: chosen.box.bottom - 2.5, isFar: chosen.isFar });
  }
  return points.map(({ x, y }, index) => placed.get(index) ?? { x, y, isFar: false });
}

interface Try {
  readonly box: Box;
  readonly isFar: boolean;
}

function placesOf({ x, y }: LabelledPoint, width: number): readonly Try[] {
  return RINGS.flatMap((ring) => {
    const gap = RADIUS + 2 + ring;
    const tries: readonly (readonly [left: number, middle: number])[] = [
      [x + gap, y],
      [x - gap - width, y],
      [x - width / 2, y - gap - HEIGHT / 2],
      [x - width / 2, y + gap + HEIGHT / 2],
      [x + RADIUS, y - gap],
      [x + RADIUS, y + gap],
      [x - RADIUS - width, y - gap],
      [x - RADIUS - width, y + gap],
    ];
    return tries.map(([left, middle]) => ({
      box: { left, right: left + width, top: middle - HEIGHT / 2, bottom: middle + HEIGHT / 2 },
      isFar: ring > 0,
    }));
  });
}

/** Everywhere else, the nearest first: for a point in a crowd or a corner. */
function placesAnywhere({ x, y }: LabelledPoint, width: number, frame: Box): readonly Try[] {
  const places: Try[] = [];
  for (let top = frame.top; top + HEIGHT <= frame.bottom; top += HEIGHT / 2) {
    for (let left = frame.left; left + width <= frame.right; left += HEIGHT / 2) {
      const box = { left, top, right: left + width, bottom: top + HEIGHT };
      places.push({ box, isFar: true });
    }
  }
  const distance = ({ box }: Try): number =>
    Math.hypot((box.left + box.right) / 2 - x, (box.top + box.bottom) / 2 - y);
  return places.sort((one, other) => distance(one) - distance(other));
}

function crowdAround(point: LabelledPoint, points: readonly LabelledPoint[]): number {
  return points.filter(({ x, y }) => Math.hypot(x - point.x, y - point.y) < 60).length;
}

function around(x: number, y: number): Box {
  return { left: x - RADIUS, right: x + RADIUS, top: y - RADIUS, bottom: y + RADIUS };
}

function overlap(one: Box, other: Box): boolean {
  return (
    one.left < other.right &&
    other.left < one.right &&
    one.top < other.bottom &&
    other.top < one.bottom
  );
}

function isInside(box: Box, frame: Box): boolean {
  return (
    box.left >= frame.left &&
    box.right <= frame.right &&
    box.top >= frame.top &&
    box.bottom <= frame.bottom
  );
}
