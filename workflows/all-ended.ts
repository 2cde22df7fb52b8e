/** All results, or the first failure once nothing runs any more that a resumed stage would meet. */
export async function allEnded<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
}
