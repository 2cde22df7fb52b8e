import { WeldlineError } from '../engine/errors.ts';

/** What credentials look like. Each pattern is long enough that no model name matches it. */
const SECRET_PATTERNS: readonly (readonly [kind: string, pattern: RegExp])[] = [
  ['a Hugging Face token', /\b(?:hf|api_org)_[A-Za-z0-9]{20,}/g],
  ['an AWS access key', /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/g],
  ['a GitHub token', /\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})/g],
  ['an API key', /\bsk-[A-Za-z0-9_-]{20,}/g],
  [
    'a signed URL',
    /[?&](?:X-Amz-Signature|X-Goog-Signature|sig|token|access_token)=[^\s&"']{8,}/gi,
  ],
  ['a URL with a password', /\b[A-Za-z][A-Za-z0-9+.-]*:\/\/[^\s/@:"']*:[^\s/@"']+@/g],
  ['a private key or certificate', /-----BEGIN/g],
];

/**
 * Refuses text that holds a credential, comments included: recipes are committed, copied into
 * histories and published. The message names the place and the kind, never the credential.
 *
 * @throws WeldlineError `recipe.secret`
 */
export function refuseSecrets(text: string, file: string): void {
  const found: string[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    for (const [kind, pattern] of SECRET_PATTERNS) {
      for (const match of line.matchAll(pattern)) {
        found.push(`${file}:${index + 1}:${match.index + 1} looks like ${kind}`);
      }
    }
  }
  if (found.length === 0) return;
  throw new WeldlineError(
    'recipe.secret',
    `A recipe must hold no credentials:\n${found.map((place) => `  ${place}`).join('\n')}\n` +
      'Take it out, revoke it if the file was ever shared, and set HF_TOKEN in the environment ' +
      'or log in with the Hugging Face CLI instead.',
    { details: { file, problems: found } },
  );
}
