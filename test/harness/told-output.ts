import { Output } from '../../cli/output.ts';

/** Keeps what a command says, for commands that are run within the test's own process. */
export class ToldOutput extends Output {
  readonly lines: string[] = [];
  readonly notes: string[] = [];
  #result: unknown;

  constructor() {
    super(false);
  }

  override line(text = ''): void {
    this.lines.push(text);
  }

  override note(text: string): void {
    this.notes.push(text);
  }

  override result(value: unknown): void {
    this.#result = JSON.parse(JSON.stringify(value));
  }

  get text(): string {
    return this.lines.join('\n');
  }

  /** The result for scripts, as JSON keeps it. */
  as<T>(): T {
    return this.#result as T;
  }
}
