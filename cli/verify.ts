import { readFile } from 'node:fs/promises';
import type { Trust } from '../attest/model-signature.ts';
import type { Claim } from '../audit/claim.ts';
import { verifyArtefact } from '../audit/verify-artefact.ts';
import { readEnvironment } from '../config/environment.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { WeldlineError } from '../engine/errors.ts';
import { modelAccess } from '../workers/model-access.ts';
import { EXIT } from './exit-codes.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';
import { usage } from './usage.ts';

export interface VerifyCommand {
  readonly key?: string;
  readonly identity?: string;
  readonly issuer?: string;
  readonly trustRoot?: string;
  readonly base?: string;
  readonly fetch?: boolean;
}

/** `weldline verify`: what was published, merged or converted, by everything it says of itself. */
export async function runVerify(
  target: string,
  options: VerifyCommand,
  output: Output,
): Promise<number> {
  const progress = new Progress();
  let bytesDone = 0;
  const { claims, ...verified } = await verifyArtefact({
    access: modelAccess(readEnvironment()),
    target,
    trust: await trustOf(options),
    base: options.base,
    mayFetch: options.fetch ?? false,
    signal: interruptionSignal(),
    onBytes: (count) => {
      bytesDone += count;
      progress.update({ label: 'verifying', item: '', bytesDone, bytesTotal: 0 });
    },
    onProgress: ({ file, ...bytes }) =>
      progress.update({ label: 'fetching', item: file, ...bytes }),
  }).finally(() => progress.clear());
  const wrong = claims.filter(({ status }) => status === 'failed');
  for (const claim of claims) output.line(lineOf(claim));
  output.result({ ...verified, isIntact: wrong.length === 0, claims });
  const [first] = wrong;
  if (first === undefined) {
    const { target, artefact } = verified;
    // At a place that can move, or under another name, an earlier release is as intact.
    const name = artefact === undefined ? '' : `\nIt is ${artefact}.`;
    output.line(`\n${target} is intact, as far as it was checked.${name}`);
    return EXIT.ok;
  }
  if (output.json) return EXIT.failed;
  const names = wrong.map(({ claim }) => claim).join(', ');
  return output.error(
    new WeldlineError(
      first.code ?? 'verify.digest-mismatch',
      `${verified.target} is not what it says (${names}): ${first.text}`,
    ),
  );
}

const WORDS: Readonly<Record<Claim['status'], string>> = {
  verified: 'verified',
  failed: 'FAILED',
  'not-checked': 'not checked',
};

function lineOf({ claim, status, text }: Claim): string {
  return `${claim.padEnd(10)}  ${WORDS[status].padEnd(11)}  ${text}`;
}

async function trustOf(options: VerifyCommand): Promise<Trust | undefined> {
  const { key, identity, issuer, trustRoot } = options;
  if (key !== undefined) {
    if (identity !== undefined || issuer !== undefined) {
      throw usage('Give --key, or --identity and --issuer: a signature is made in one way.');
    }
    return { publicKey: await readText(key) };
  }
  if (identity === undefined && issuer === undefined) {
    if (trustRoot !== undefined) throw usage('--trust-root goes with --identity and --issuer.');
    return undefined;
  }
  if (identity === undefined || issuer === undefined) {
    throw usage('--identity and --issuer go together: who signed, and who vouches for that.');
  }
  const trusted = trustRoot === undefined ? {} : { trustedRoot: await readText(trustRoot) };
  return { identity, issuer, ...trusted };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw toReadError(error, path);
  }
}
