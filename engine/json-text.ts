/** Configurations nest less than ten levels; readers that recurse must not run out of stack. */
const DEPTH_MAX = 100;

/**
 * Parses JSON from outside.
 * @throws SyntaxError if it is not JSON, or nested more deeply than any configuration
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  if (depthOf(text) > DEPTH_MAX) throw new SyntaxError(`nested more than ${DEPTH_MAX} deep`);
  return value;
}

/** Open brackets outside strings, at most, in valid JSON. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (inString && character === '\\') i++;
    else if (character === '"') inString = !inString;
    else if (!inString && (character === '[' || character === '{')) {
      deepest = Math.max(deepest, ++depth);
    } else if (!inString && (character === ']' || character === '}')) depth--;
  }
  return deepest;
}
