import { createHmac, randomBytes } from 'node:crypto';

/** Links to the storage host that carry their own permission and expire, like those of a CDN. */
export class StorageLinks {
  readonly #origin: string;
  readonly #lifeMs: number;
  readonly #secret = randomBytes(16);

  constructor(origin: string, lifeMs = 3_600_000) {
    this.#origin = origin;
    this.#lifeMs = lifeMs;
  }

  linkTo(sha256: string): string {
    const expires = String(Date.now() + this.#lifeMs);
    return `${this.#origin}/${sha256}?expires=${expires}&signature=${this.#sign(sha256, expires)}`;
  }

  isValid(url: URL): boolean {
    const expires = url.searchParams.get('expires') ?? '';
    const signature = url.searchParams.get('signature');
    const sha256 = url.pathname.slice(1);
    return signature === this.#sign(sha256, expires) && Number(expires) >= Date.now();
  }

  #sign(sha256: string, expires: string): string {
    return createHmac('sha256', this.#secret).update(`${sha256} ${expires}`).digest('hex');
  }
}
