/** Whatever stands in a downloaded document, reading it ends with a document or a named error. */
import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { billOfMaterials, parseBillOfMaterials } from '../../attest/bom.ts';
import { signModel, verifyModelSignature } from '../../attest/model-signature.ts';
import { parseProvenance } from '../../attest/parse-provenance.ts';
import { parseModelSignature } from '../../attest/parse-signature.ts';
import { provenanceStatement } from '../../attest/provenance.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { parseBaseCard } from '../../report/base-card.ts';
import { MERGED } from './sample-facts.ts';

/** A signature in form, by nobody. */
const signature = await signModel({
  name: 'm',
  files: MERGED.files,
  signer: {
    ...{ name: 'nobody', warnings: [] },
    sign: async (statement) =>
      JSON.stringify({
        mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
        verificationMaterial: { publicKey: {}, tlogEntries: [] },
        dsseEnvelope: {
          payload: statement.toString('base64'),
          payloadType: 'application/vnd.in-toto+json',
          signatures: [{ sig: 'MEUCIQ==', keyid: '' }],
        },
      }),
  },
});

const DOCUMENTS = {
  signature: { text: signature, parse: parseModelSignature },
  provenance: { text: provenanceStatement(MERGED), parse: parseProvenance },
  'bill of materials': { text: billOfMaterials(MERGED), parse: parseBillOfMaterials },
} as const;

/** A document in which one value became another. */
const changed = (text: string): fc.Arbitrary<string> =>
  fc.tuple(fc.nat(), fc.jsonValue()).map(([place, value]) => {
    let index = 0;
    const count = [...text.matchAll(/[:[,]/g)].length;
    return JSON.stringify(
      JSON.parse(text, (_, old: unknown) => (index++ === place % count ? value : old)),
    );
  });

function expectNamed(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(WeldlineError);
    expect((error as WeldlineError).code).toMatch(/^attest\./);
    expect((error as WeldlineError).message.length).toBeLessThan(1000);
  }
}

describe.each(Object.entries(DOCUMENTS))('a hostile %s', (_, { text, parse }) => {
  it('is read or refused by name', () => {
    expect(() => parse(text)).not.toThrow();
    fc.assert(fc.property(changed(text), (other) => expectNamed(() => parse(other))));
    fc.assert(fc.property(fc.json(), (other) => expectNamed(() => parse(other))));
    fc.assert(fc.property(fc.string(), (other) => expectNamed(() => parse(other))));
    expectNamed(() => parse('['.repeat(200_000)));
    expectNamed(() => parse(`${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`));
  });
});

it('is never believed: a signature by nobody', async () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const trust = [{ publicKey: pem }, { identity: 'i', issuer: 'j', trustedRoot: '{}' }];
  await fc.assert(
    fc.asyncProperty(changed(signature), fc.constantFrom(...trust), async (text, whom) => {
      const verified = verifyModelSignature(text, { files: MERGED.files, trust: whom });
      await expect(verified).rejects.toBeInstanceOf(WeldlineError);
    }),
  );
});

it('says nothing where it makes no sense: the card of a base', () => {
  const yaml = fc.array(
    fc.constantFrom('license', ': ', '\n', '- ', '[', '{', '&a', '*a', '"', '!!js/function', 'mit'),
  );
  fc.assert(
    fc.property(yaml, fc.json(), (pieces, config) => {
      const readme = `---\n${pieces.join('')}\n---\n`;
      const { license } = parseBaseCard({ readme, config, license: { path: 'L', text: readme } });
      expect(license?.id ?? 'none').toMatch(/^[A-Za-z0-9][\w.+-]*$/);
    }),
  );
});
