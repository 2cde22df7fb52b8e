import { inspect } from 'node:util';

const SHOWN = '[secret]';

/**
 * A credential that does not show in logs, JSON, template strings or `console.log`: only
 * {@link Secret.reveal} gives it, so every place that uses one can be found by that name.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [inspect.custom](): string {
    return SHOWN;
  }
}
