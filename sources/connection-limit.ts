/** Runs work as soon as one of `max` places is free, first come, first served. */
export type ConnectionLimit = <T>(work: () => Promise<T>) => Promise<T>;

export function connectionLimit(max: number): ConnectionLimit {
  let free = max;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}
