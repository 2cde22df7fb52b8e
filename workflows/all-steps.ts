/** A piece of work that may need others to be done first. */
interface Step {
  readonly id: string;
}

/**
 * Does all steps that are not done yet, each once what it needs of the others is there. One that
 * fails does not stop the others, whose work would be lost, but what needs it fails with it.
 *
 * What a failed step was made of no longer counts as done: that may be what is damaged, and a stage
 * that is resumed has to look at it again. What is sound is found where it is.
 *
 * @param done results by the id of their step; what is there is not done again
 */
export async function allSteps<S extends Step, Done>(
  steps: readonly S[],
  done: Map<string, Done>,
  needsOf: (step: S) => readonly string[],
  work: (step: S, needed: readonly (Done | undefined)[]) => Promise<Done>,
): Promise<void> {
  const started = new Map<string, Promise<Done | undefined>>();
  const suspects = new Set<string>();
  const start = (id: string): Promise<Done | undefined> => {
    const running = started.get(id) ?? finish(id);
    started.set(id, running);
    return running;
  };
  const finish = async (id: string): Promise<Done | undefined> => {
    const step = steps.find((each) => each.id === id);
    if (step === undefined || done.has(id)) return done.get(id);
    const needs = needsOf(step);
    const needed = await Promise.all(needs.map(start));
    try {
      const result = await work(step, needed);
      done.set(id, result);
      return result;
    } catch (error) {
      for (const need of needs) suspects.add(need);
      throw error;
    }
  };
  const works = steps.map(({ id }) => start(id));
  await Promise.allSettled(works);
  for (const id of suspects) done.delete(id);
  await Promise.all(works);
}
