import { readEnvironment } from '../config/environment.ts';
import { loadRecipe } from '../config/recipe.ts';
import { compileKernel, type KernelKind } from '../kernels/index.ts';
import { type DoctorCheck, diagnose } from '../tools/doctor.ts';
import { needsOf } from '../tools/recipe-needs.ts';
import { diagnosePublishing } from './doctor-publishing.ts';
import { EXIT } from './exit-codes.ts';
import { formatTable } from './format.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';

/** `weldline doctor`: what this machine has of all that a release may need. */
export async function runDoctor(path: string | undefined, output: Output): Promise<number> {
  const signal = interruptionSignal();
  const loaded = path === undefined ? undefined : await loadRecipe(path);
  const environment = readEnvironment();
  const machine = await diagnose({
    environment,
    needs: loaded && needsOf(loaded.recipe),
    kernel: await kernelKind(),
    signal,
  });
  const publishing = loaded && (await diagnosePublishing(loaded.recipe, environment));
  const checks = [...machine.checks, ...(publishing ?? [])];
  const ok = checks.every(({ needed, state }) => !needed || state === 'ok');
  output.line(formatTable(checks.map(row)));
  output.line();
  const whose = loaded === undefined ? 'is needed in any case' : 'this recipe needs';
  output.line(ok ? `All that ${whose} is here.` : `Not all that ${whose} is here. What mends it:`);
  if (!ok) output.line(formatTable(remedies(checks)));
  output.result({ ok, checks });
  return ok ? EXIT.ok : EXIT.failed;
}

/** Each command or step once, with all that it brings. */
function remedies(checks: readonly DoctorCheck[]): string[][] {
  const byMend = new Map<string, string[]>();
  for (const { name, needed, state, mend = 'see above' } of checks) {
    if (needed && state !== 'ok') byMend.set(mend, [...(byMend.get(mend) ?? []), name]);
  }
  return [...byMend].map(([mend, names]) => ['', mend, names.join(', ')]);
}

async function kernelKind(): Promise<KernelKind | Error> {
  try {
    return (await compileKernel()).kind;
  } catch (error) {
    return error as Error;
  }
}

/** `-` is what is not there and not missed. */
function row({ name, state, needed, version, path, note, mend }: DoctorCheck): string[] {
  const mark = state === 'missing' && !needed ? '-' : state;
  const advice = state === 'ok' || mend === undefined ? [] : [`(${mend})`];
  return [mark, name, [version, path, note, ...advice].filter(Boolean).join('  ')];
}
