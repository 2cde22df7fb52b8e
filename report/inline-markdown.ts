/** Names of models, tensors and runs come from outside: they must not end a cell or a line. */
export function inline(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/[\\|<>`]/g, '\\$&');
}
