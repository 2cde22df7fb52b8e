/** Longer names are cut before they are compared, so that input cannot make this slow. */
const COMPARED_LENGTH_MAX = 200;

/** Edit distances are computed for at most this many candidates. */
const CANDIDATES_MAX = 500;

/**
 * The names most like `name`: first those that share the most trailing path segments (a wrong
 * prefix is the common mistake), among them those with the smallest edit distance.
 */
export function nearestNames(name: string, candidates: Iterable<string>, count: number): string[] {
  let best: string[] = [];
  let bestShared = 0;
  for (const candidate of candidates) {
    const shared = sharedTrailingSegments(name, candidate);
    if (shared > bestShared) {
      bestShared = shared;
      best = [];
    }
    if (shared === bestShared && best.length < CANDIDATES_MAX) best.push(candidate);
  }
  return best
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1))
    .slice(0, count)
    .map(({ candidate }) => candidate);
}

function sharedTrailingSegments(a: string, b: string): number {
  const left = a.split('.').reverse();
  const right = b.split('.').reverse();
  const limit = Math.min(left.length, right.length);
  let shared = 0;
  while (shared < limit && left[shared] === right[shared]) shared++;
  return shared;
}

/** Levenshtein distance, by rows. */
export function editDistance(first: string, second: string): number {
  const a = first.slice(0, COMPARED_LENGTH_MAX);
  const b = second.slice(0, COMPARED_LENGTH_MAX);
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
