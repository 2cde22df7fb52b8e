/** model.sig between weldline and the tool model_signing, and what tampering does to it. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keySigner } from '../../attest/key-signer.ts';
import { signModel, verifyModelSignature } from '../../attest/model-signature.ts';
import { inSigningOrder, rootDigest } from '../../attest/signed-files.ts';
import { Secret } from '../../config/secret.ts';
import { runServicesPython } from '../services-python.ts';
import {
  digestsIn,
  type KeyFiles,
  temporaryDirectory,
  writeKey,
  writeModel,
} from './signed-model.ts';

const TOOL = join(import.meta.dirname, 'model_signing_tool.py');
const PASSPHRASE = 'open sesame';
const ORDER_CASES = 200;

/** By what is special about it: a key, and whether its file is encrypted. */
const KEYS = {
  'P-256': () => writeKey(home, 'P-256'),
  'P-384': () => writeKey(home, 'P-384'),
  'P-521': () => writeKey(home, 'P-521'),
  'SEC1 file': () => writeKey(home, 'P-256', { format: 'sec1' }),
  'encrypted file': () => writeKey(home, 'P-256', { passphrase: PASSPHRASE }),
} as const;
type KeyName = keyof typeof KEYS;
const KEY_NAMES = Object.keys(KEYS) as KeyName[];

/** What a person, an attacker or an unlucky download does to a directory, and what is said of it. */
const TAMPERINGS = {
  'a byte of the weights': {
    tamper: (model: string) => writeFile(join(model, 'model.safetensors'), 'weightz'),
    code: 'attest.signature-invalid',
    details: { changed: ['model.safetensors'], missing: [], added: [] },
  },
  'a file too many': {
    tamper: (model: string) => writeFile(join(model, 'pytorch_model.bin'), 'evil'),
    code: 'attest.not-covered',
    details: { changed: [], missing: [], added: ['pytorch_model.bin'] },
  },
  'a file too few': {
    tamper: (model: string) => rm(join(model, 'config.json')),
    code: 'attest.signature-invalid',
    details: { changed: [], missing: ['config.json'], added: [] },
  },
  'another name': {
    tamper: (model: string) => rename(join(model, 'config.json'), join(model, 'config.jsom')),
    code: 'attest.signature-invalid',
    details: { changed: [], missing: ['config.json'], added: ['config.jsom'] },
  },
} as const;
type Tampering = keyof typeof TAMPERINGS;
const TAMPERING_NAMES = Object.keys(TAMPERINGS) as Tampering[];

/** Nasty, but names that a file system and JSON can have. */
const component = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 4 })
  .filter((text) => !/[/\0]/.test(text) && text !== '.' && text !== '..');
const near = fc.constantFrom('a', 'a-b', 'a.b', 'B', 'ä', '\ufb00', '😀', '\uffff', 'a b', '~');
const path = fc
  .array(fc.oneof(component, near), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join('/'));

interface Order {
  readonly names: readonly string[];
  readonly root: string;
}

let home: string;
const keys = {} as Record<KeyName, KeyFiles>;
/** Models by the key that signed them: by weldline, by the tool, and damaged since. */
const ours = {} as Record<KeyName, string>;
const theirs = {} as Record<KeyName, string>;
const tampered = {} as Record<Tampering, string>;
let fetched: string;
const answers = new Map<string, string>();
const orders: { readonly names: readonly string[]; readonly theirs: Order }[] = [];

async function sign(model: string, name: KeyName): Promise<string> {
  const signer = await keySigner(keys[name].key, new Secret(PASSPHRASE));
  const text = await signModel({ name: 'm', files: await digestsIn(model), signer });
  await writeFile(join(model, 'model.sig'), text);
  return model;
}

/** @param name of the key that it should be signed with */
async function verifyIn(model: string, name: KeyName) {
  const text = await readFile(join(model, 'model.sig'), 'utf8');
  return verifyModelSignature(text, {
    files: await digestsIn(model),
    trust: { publicKey: await readFile(keys[name].publicKey, 'utf8') },
  });
}

// The tool takes a second to load, so one process is asked everything.
beforeAll(async () => {
  home = await temporaryDirectory();
  const questions: { id: string; question: object }[] = [];
  const ask = (verb: 'sign' | 'verify', id: string, model: string, name: KeyName) => {
    const passphrase = name === 'encrypted file' ? { passphrase: PASSPHRASE } : {};
    const signature = join(model, 'model.sig');
    const question = { ...keys[name], ...passphrase, ask: verb, model, signature };
    questions.push({ id: `${verb} ${id}`, question });
  };
  for (const name of KEY_NAMES) {
    keys[name] = await KEYS[name]();
    ours[name] = await sign(await writeModel(home), name);
    ask('verify', name, ours[name], name);
    theirs[name] = await writeModel(home);
    ask('sign', name, theirs[name], name);
  }
  for (const name of TAMPERING_NAMES) {
    tampered[name] = await sign(await writeModel(home), 'P-256');
    await TAMPERINGS[name].tamper(tampered[name]);
    ask('verify', name, tampered[name], 'P-256');
  }
  fetched = await sign(await writeModel(home), 'P-256');
  await mkdir(join(fetched, '.cache/huggingface/download'), { recursive: true });
  await writeFile(join(fetched, '.cache/huggingface/download/config.json.metadata'), 'x');
  await writeFile(join(fetched, '.gitattributes'), '*.safetensors filter=lfs');
  ask('verify', 'fetched', fetched, 'P-256');

  const sets = fc.sample(fc.uniqueArray(path, { minLength: 1, maxLength: 12 }), ORDER_CASES);
  const replies = (await runServicesPython(TOOL, [
    ...questions.map(({ question }) => question),
    ...sets.map((names) => ({ ask: 'order', names })),
  ])) as unknown[];
  for (const [index, { id }] of questions.entries()) answers.set(id, replies[index] as string);
  for (const [index, names] of sets.entries()) {
    orders.push({ names, theirs: replies[questions.length + index] as Order });
  }
});

afterAll(() => rm(home, { recursive: true, force: true }));

describe('the tool model_signing', () => {
  it.each(KEY_NAMES)('verifies what weldline signed: %s', async (name) => {
    expect(answers.get(`verify ${name}`)).toBe('verified');
    expect((await verifyIn(ours[name], name)).signedBy).toMatch(/fingerprint sha256:[0-9a-f]{64}$/);
  });

  it.each(KEY_NAMES)('signs what weldline verifies: %s', async (name) => {
    expect(answers.get(`sign ${name}`)).toBe('signed');
    expect(await verifyIn(theirs[name], name)).toMatchObject({ filesListed: 5, ignored: [] });
  });

  it('verifies what a client of the hub downloaded, with its notes beside it', async () => {
    expect(answers.get('verify fetched')).toBe('verified');
    const { ignored } = await verifyIn(fetched, 'P-256');
    expect([...ignored].sort()).toEqual([
      '.cache/huggingface/download/config.json.metadata',
      '.gitattributes',
    ]);
  });

  it.each(TAMPERING_NAMES)('finds %s, as weldline does, which names the file', async (name) => {
    const { code, details } = TAMPERINGS[name];
    expect(answers.get(`verify ${name}`)).toMatch(/^ValueError: Signature mismatch/);
    const error = await verifyIn(tampered[name], 'P-256').catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code, details });
    for (const file of Object.values(details).flat()) {
      expect((error as Error).message).toContain(file);
    }
  });

  it('puts files with nasty names into the same order', () => {
    expect(orders).toHaveLength(ORDER_CASES);
    for (const { names, theirs: expected } of orders) {
      const files = names.map((name) => ({
        path: name,
        sha256: createHash('sha256').update(name).digest('hex'),
      }));
      const ordered = inSigningOrder(files);
      expect({ names: ordered.map((file) => file.path), root: rootDigest(ordered) }).toEqual(
        expected,
      );
    }
  });
});

describe('a signature that was tampered with', () => {
  it.each([
    ['a name', 'config.json', 'config.jsom'],
    ['a digest', '"digest":"', '"digest":"0'],
    ['what is ignored', '"ignore_paths":[', '"ignore_paths":["model.safetensors",'],
    ['the model’s name', '"name":"m"', '"name":"n"'],
  ])('is found: %s in the payload', async (_, before, after) => {
    const text = await readFile(join(ours['P-256'], 'model.sig'), 'utf8');
    const bundle = JSON.parse(text);
    const payload = Buffer.from(bundle.dsseEnvelope.payload, 'base64').toString();
    expect(payload).toContain(before);
    bundle.dsseEnvelope.payload = Buffer.from(payload.replace(before, after)).toString('base64');
    await expect(verifyText(JSON.stringify(bundle))).rejects.toMatchObject({
      code: 'attest.signature-invalid',
    });
  });

  it('is found, whichever byte it is', async () => {
    const text = await readFile(join(ours['P-256'], 'model.sig'), 'utf8');
    const indices = new Set(
      fc.sample(fc.integer({ min: 0, max: text.length - 1 }), 300).concat(lastCharacters(text)),
    );
    for (const index of indices) {
      const byte = text[index] === 'A' ? 'B' : 'A';
      const changed = `${text.slice(0, index)}${byte}${text.slice(index + 1)}`;
      const error = await verifyText(changed).catch((caught: unknown) => caught);
      expect(error, `byte ${index}`).toMatchObject({
        code: expect.stringMatching(/^attest\.(signature-invalid|unsupported)$/),
      });
    }
  });

  it('is one of another key, and says which', async () => {
    const publicKey = await readFile(keys['P-384'].publicKey, 'utf8');
    await expect(verifyText(await read(), publicKey)).rejects.toMatchObject({
      code: 'attest.signature-invalid',
      message: expect.stringMatching(/another key \(fingerprint sha256:\w{64}\)/),
    });
    const hidden = JSON.parse(await read());
    delete hidden.verificationMaterial.publicKey.hint;
    await expect(verifyText(JSON.stringify(hidden), publicKey)).rejects.toMatchObject({
      code: 'attest.signature-invalid',
      message: expect.stringContaining('another key made it'),
    });
  });

  const read = (): Promise<string> => readFile(join(ours['P-256'], 'model.sig'), 'utf8');

  async function verifyText(text: string, publicKey?: string) {
    return verifyModelSignature(text, {
      files: await digestsIn(ours['P-256']),
      trust: { publicKey: publicKey ?? (await readFile(keys['P-256'].publicKey, 'utf8')) },
    });
  }

  /** The ends of base64 texts, whose last bits mean nothing to a decoder that is lenient. */
  function lastCharacters(text: string): number[] {
    return [...text.matchAll(/[A-Za-z0-9+/](?==*")/g)].map(({ index }) => index);
  }
});
