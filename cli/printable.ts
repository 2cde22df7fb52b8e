// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Text may quote adapters, servers and programs: nothing in it may steer a terminal. */
export function printable(text: string): string {
  return text.replaceAll(CONTROLS, '\ufffd');
}
