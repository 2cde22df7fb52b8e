import fc from 'fast-check';
import { expect, it } from 'vitest';
import { placeLabels } from '../../../../report/html/pictures/place-labels.ts';

const FRAME = { left: 54, top: 0, right: 320, bottom: 256 };
const width = (label: string) => 6.7 * label.length;

function boxesOf(points: Parameters<typeof placeLabels>[0]) {
  return placeLabels(points, FRAME).map(({ x, y }, index) => ({
    ...{ left: x, right: x + width(points[index]!.label), top: y - 9.5, bottom: y + 2.5 },
  }));
}

/** How far two boxes lie in each other, in both directions; 0 where they do not. */
function overlapOf(one: ReturnType<typeof boxesOf>[number], other: typeof one): number {
  const x = Math.min(one.right, other.right) - Math.max(one.left, other.left);
  const y = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
  return Math.min(x, y) > 1e-9 ? Math.min(x, y) : 0;
}

/** No label lies on another or on a point, and all are in the frame. */
function expectPlaced(points: Parameters<typeof placeLabels>[0]): void {
  const boxes = boxesOf(points);
  for (const [index, box] of boxes.entries()) {
    expect(Math.min(box.left - FRAME.left, FRAME.right - box.right)).toBeGreaterThanOrEqual(0);
    expect(Math.min(box.top - FRAME.top, FRAME.bottom - box.bottom)).toBeGreaterThanOrEqual(-1e-9);
    for (const other of boxes.slice(index + 1)) expect(overlapOf(box, other)).toBe(0);
    for (const { x, y } of points) {
      const mark = { left: x - 6, right: x + 6, top: y - 6, bottom: y + 6 };
      expect(overlapOf(box, mark)).toBe(0);
    }
  }
}

it('labels neither lie on each other nor on a point, and stay in the frame', () => {
  const point = fc.record({
    x: fc.double({ min: 60, max: 310, noNaN: true }),
    y: fc.double({ min: 10, max: 250, noNaN: true }),
    label: fc.constantFrom('Q4_K_M', 'Q8_0', 'awq-w4a16-g128', 'IQ2_XXS'),
  });
  const points = fc.array(point, { maxLength: 9 });
  fc.assert(fc.property(points, expectPlaced), { numRuns: 100 });
});

it('finds a place elsewhere for what is in a crowd at the edge', () => {
  const crowd = Array.from({ length: 20 }, (_, index) => ({
    ...{ x: 60 + 8 * (index % 2), y: 10 + 4 * Math.floor(index / 2), label: 'awq-w4a16-g128' },
  }));
  expectPlaced(crowd);
  expect(placeLabels(crowd, FRAME).some(({ isFar }) => isFar)).toBe(true);
});

it('places all the quantizations that one release may have', () => {
  const names = ['Q8_0', 'Q6_K', 'Q5_K_M', 'Q5_K_S', 'Q5_0', 'Q4_K_M', 'Q4_K_S', 'Q4_0', 'IQ4_NL'];
  const bits = [8.5, 6.56, 5.69, 5.53, 5.51, 4.83, 4.58, 4.55, 4.5];
  const points = names.map((label, index) => ({
    ...{ label, x: 54 + 16 * bits[index]!, y: 20 + 25 * bits[index]! },
  }));
  expectPlaced(points);
  expect(placeLabels(points, FRAME)).toEqual(placeLabels(points, FRAME));
});
