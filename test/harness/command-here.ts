import { vi } from 'vitest';
import { buildProgram } from '../../cli/program.ts';

export interface WrittenHere {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | string | null | undefined;
}

/** Runs a command in this process, whose environment it reads; one at a time writes here. */
export async function weldlineHere(...args: string[]): Promise<WrittenHere> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += String(text);
      return true;
    }),
  );
  try {
    await buildProgram().parseAsync(args, { from: 'user' });
    return { ...written, status: process.exitCode };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = undefined;
  }
}
