import { toKnownError } from '../engine/disk-errors.ts';
import type { WeldlineError } from '../engine/errors.ts';
import { EXIT } from './exit-codes.ts';
import { Interrupted } from './interruption.ts';
import { printable } from './printable.ts';

/** How a command speaks: people read standard error and output, scripts read one JSON object. */
export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** A line of the result, for people. */
  line(text = ''): void {
    if (!this.json) process.stdout.write(`${printable(text)}\n`);
  }

  /** A line about what goes on; never mixed into what a script reads. */
  note(text: string): void {
    process.stderr.write(`${printable(text)}\n`);
  }

  warn(text: string): void {
    this.note(`warning: ${text}`);
  }

  /** The result, for scripts. */
  result(value: unknown): void {
    if (this.json) process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** Prints an error. @returns the exit status */
  error(error: unknown): number {
    if (error instanceof Interrupted) {
      this.note('Stopped.');
      return EXIT.interrupted;
    }
    const known = toKnownError(error);
    if (this.json) {
      const { code, message, details } = known;
      this.result({ error: { code, message, ...(hasKeys(details) ? { details } : {}) } });
    } else {
      this.note(`error: ${known.message}`);
      this.note(`  [${known.code}]`);
    }
    return isUsage(known) ? EXIT.usage : EXIT.failed;
  }
}

function isUsage({ code }: WeldlineError): boolean {
  if (code.startsWith('recipe.')) return true;
  return ['cli.usage', 'config.invalid', 'plan.option-invalid'].includes(code);
}

function hasKeys(value: object): boolean {
  return Object.keys(value).length > 0;
}
