/** What a script can tell from the exit status; the README lists them. */
export const EXIT = {
  ok: 0,
  /** The work failed; the error has a code. */
  failed: 1,
  /** The command line or the recipe is wrong; nothing was started. */
  usage: 2,
  /** The release waits for a person; mend the cause and resume. */
  waiting: 3,
  /** Stopped by Ctrl-C or SIGTERM; the same command goes on. */
  interrupted: 130,
} as const;
