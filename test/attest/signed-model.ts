/** Directories with models in them, and keys to sign them with. */
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { SignedFile } from '../../attest/signed-files.ts';

export const MODEL: Readonly<Record<string, string>> = {
  'model.safetensors': 'weights',
  'config.json': '{}',
  'README.md': '# A card',
  'adapters/tone/adapter_model.safetensors': 'factors',
  'adapters-more/x': '',
};

export async function temporaryDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'weldline-attest-'));
}

/** Writes files into a new directory below `parent`. */
export async function writeModel(
  parent: string,
  files: Readonly<Record<string, string | Buffer>> = MODEL,
): Promise<string> {
  const directory = join(parent, randomUUID());
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, path)), { recursive: true });
    await writeFile(join(directory, path), content);
  }
  return directory;
}

/** Every file below a directory with its digest. */
export async function digestsIn(directory: string): Promise<SignedFile[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return Promise.all(
    files.map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const sha256 = createHash('sha256')
        .update(await readFile(path))
        .digest('hex');
      return { path: path.slice(directory.length + 1), sha256 };
    }),
  );
}

export interface KeyFiles {
  readonly key: string;
  readonly publicKey: string;
}

export type KeyCurve = 'P-256' | 'P-384' | 'P-521' | 'secp256k1';

export async function writeKey(
  directory: string,
  namedCurve: KeyCurve,
  { format = 'pkcs8', passphrase }: { format?: 'pkcs8' | 'sec1'; passphrase?: string } = {},
): Promise<KeyFiles> {
  const pair = generateKeyPairSync('ec', { namedCurve });
  const locked = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase };
  const files = {
    key: join(directory, `${randomUUID()}.pem`),
    publicKey: join(directory, `${randomUUID()}.pub`),
  };
  const pem = pair.privateKey.export({ type: format, format: 'pem', ...locked });
  await writeFile(files.key, pem, { mode: 0o600 });
  await writeFile(files.publicKey, pair.publicKey.export({ type: 'spki', format: 'pem' }));
  return files;
}
