/** A half-open range of bytes. */
interface Span {
  readonly begin: number;
  readonly end: number;
}

/** Joins ranges that touch or overlap, in ascending order. */
export function joinRanges(ranges: readonly Span[]): Span[] {
  const joined: { begin: number; end: number }[] = [];
  for (const { begin, end } of [...ranges].sort((a, b) => a.begin - b.begin)) {
    const last = joined.at(-1);
    if (last !== undefined && begin <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ begin, end });
  }
  return joined;
}
