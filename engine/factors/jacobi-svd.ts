import { dot } from './orthogonalize.ts';

/** Two columns whose cosine is below this are orthogonal to working precision. */
const COSINE_MAX = 2 ** -50;

/** A matrix of float64 takes 6 to 12 sweeps; columns of mere rounding may never come to rest. */
const SWEEPS_MAX = 40;

export interface SingularVectors {
  /** U S, column by column: [size, size]. */
  readonly scaledLeft: Float64Array;
  /** V, column by column. */
  readonly right: Float64Array;
  /** The columns of both, the largest singular value first. */
  readonly order: readonly number[];
}

/**
 * Singular values and vectors of a square matrix by one-sided Jacobi rotations (Hestenes 1958):
 * columns are rotated in pairs until all are orthogonal. C V = U S.
 *
 * @param columns [size, size], column by column; becomes U S
 */
export function jacobiSvd(columns: Float64Array, size: number): SingularVectors {
  const right = new Float64Array(size * size);
  for (let i = 0; i < size; i++) right[i * size + i] = 1;
  const column = (matrix: Float64Array, index: number): Float64Array =>
    matrix.subarray(index * size, (index + 1) * size);
  const left = Array.from({ length: size }, (_, i) => column(columns, i));
  const rotated = Array.from({ length: size }, (_, i) => column(right, i));
  for (let sweep = 0, isAtRest = false; sweep < SWEEPS_MAX && !isAtRest; sweep++) {
    isAtRest = true;
    for (let p = 0; p < size - 1; p++) {
      for (let q = p + 1; q < size; q++) {
        const rotation = rotationOf(left[p]!, left[q]!);
        if (rotation === undefined) continue;
        isAtRest = false;
        rotate(left[p]!, left[q]!, rotation);
        rotate(rotated[p]!, rotated[q]!, rotation);
      }
    }
  }
  const squares = left.map((each) => dot(each, each));
  const order = squares.map((_, i) => i).sort((a, b) => squares[b]! - squares[a]! || a - b);
  return { scaledLeft: columns, right, order };
}

interface Rotation {
  readonly cosine: number;
  readonly sine: number;
}

/** What makes two columns orthogonal, if they are not. */
function rotationOf(p: Float64Array, q: Float64Array): Rotation | undefined {
  const [pp, qq, pq] = [dot(p, p), dot(q, q), dot(p, q)];
  if (Math.abs(pq) <= COSINE_MAX * Math.sqrt(pp) * Math.sqrt(qq)) return undefined;
  const zeta = (qq - pp) / (2 * pq);
  const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
  const cosine = 1 / Math.sqrt(1 + tangent * tangent);
  return { cosine, sine: cosine * tangent };
}

function rotate(p: Float64Array, q: Float64Array, { cosine, sine }: Rotation): void {
  for (let i = 0; i < p.length; i++) {
    const [a, b] = [p[i]!, q[i]!];
    p[i] = cosine * a - sine * b;
    q[i] = sine * a + cosine * b;
  }
}
