import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { Payload, PayloadCodec } from '@temporalio/common';
import proto from '@temporalio/proto';
import { WeldlineError } from '../engine/errors.ts';
import type { PayloadKeys } from './payload-keys.ts';

/** Names and layout are those of the codec servers in Temporal's samples. */
const ENCODING = 'binary/encrypted';
const CIPHER = 'aes-256-gcm';
/** NIST SP 800-38D, 8.2.2: random nonces of 96 bits are good for 2³² payloads of one key. */
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const { Payload: PayloadMessage } = proto.temporal.api.common.v1;

/**
 * Encrypts payloads on their way to the server with AES-256-GCM, each with its metadata:
 * nonce ‖ ciphertext ‖ tag. Reads what any of its keys made, and what was never encrypted, so that
 * keys can be brought in and rotated while releases run.
 */
export class EncryptionCodec implements PayloadCodec {
  readonly #keys: PayloadKeys;

  constructor(keys: PayloadKeys) {
    this.#keys = keys;
  }

  async encode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => this.#encrypt(payload));
  }

  /** @throws WeldlineError `payload.key-missing`, `payload.damaged` */
  async decode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => this.#decrypt(payload));
  }

  #encrypt(payload: Payload): Payload {
    const { current } = this.#keys;
    if (current === undefined) return payload;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, current.key, nonce);
    const plain = PayloadMessage.encode(payload).finish();
    const data = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    return {
      metadata: { encoding: Buffer.from(ENCODING), 'encryption-key-id': Buffer.from(current.id) },
      data,
    };
  }

  #decrypt(payload: Payload): Payload {
    if (textOf(payload, 'encoding') !== ENCODING) return payload;
    const id = textOf(payload, 'encryption-key-id');
    const key = this.#keys.all.get(id);
    if (key === undefined) throw keyMissing(id, this.#keys.file);
    const data = payload.data ?? new Uint8Array();
    try {
      const nonce = data.subarray(0, NONCE_BYTES);
      const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
      decipher.setAuthTag(data.subarray(-TAG_BYTES));
      const plain = Buffer.concat([
        decipher.update(data.subarray(NONCE_BYTES, -TAG_BYTES)),
        decipher.final(),
      ]);
      return PayloadMessage.decode(plain);
    } catch (cause) {
      throw new WeldlineError(
        'payload.damaged',
        `A payload on the Temporal server cannot be decrypted with the key ${id}: it was changed, or ` +
          'another key has that name here than where it was encrypted. Give every key a name of its own.',
        { cause },
      );
    }
  }
}

function textOf({ metadata }: Payload, name: string): string {
  return Buffer.from(metadata?.[name] ?? []).toString('utf8');
}

function keyMissing(id: string, file: string | undefined): WeldlineError {
  return new WeldlineError(
    'payload.key-missing',
    `What the Temporal server stores is encrypted with the payload key ${JSON.stringify(id)}, which ` +
      (file === undefined
        ? 'this process does not have. Set WELDLINE_PAYLOAD_KEYS to the file that holds it.'
        : `${file} does not hold. Add it there, after the first key, and start again.`),
  );
}
