import type { ReleaseFacts } from './release-facts.ts';

/** Names of models, tensors and runs come from outside: they must not end a cell or a line. */
export function inline(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/[\\|<>`]/g, '\\$&');
}

export function inputCell(input: ReleaseFacts['inputs'][number] | undefined): string {
  if (input === undefined) return '';
  const commit = input.commit === undefined ? '' : ` at commit \`${input.commit}\``;
  const run = input.trainingRun === undefined ? '' : `, training run ${inline(input.trainingRun)}`;
  return `${inline(input.model)}${commit}${run}`;
}
