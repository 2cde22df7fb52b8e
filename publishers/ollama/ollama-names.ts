import { createHash } from 'node:crypto';
import { WeldlineError } from '../../engine/errors.ts';

/** Of a namespace, a model and a tag, in Ollama's types/model/name.go. */
const PART_LENGTH_MAX = 80;
const DIGEST_LENGTH = 12;

/**
 * Tag of a release or an alias. `gguf-` is left out of a conversion's id, as Ollama has nothing else:
 * `merged-tiny-1.0.0-adapter-tone-3-q4_k_m`. What is too long or has other characters ends with a
 * part of its digest.
 */
export function tagOf(name: string, part: string | undefined): string {
  const full = part === undefined ? name : `${name}-${part.replace(/^gguf-/, '')}`;
  const safe = full.replace(/[^\w.-]/g, '-');
  if (safe === full && full.length <= PART_LENGTH_MAX && /^\w/.test(full)) return full;
  const digest = createHash('sha256').update(full).digest('hex').slice(0, DIGEST_LENGTH);
  const start = safe.replace(/^[-.]+/, '').slice(0, PART_LENGTH_MAX - DIGEST_LENGTH - 1);
  return `${start}-${digest}`;
}

/**
 * A model's name as Ollama lists it.
 * @throws WeldlineError `publish.rejected` for one that Ollama does not take
 */
export function modelName(model: string): string {
  const [name = '', namespace = 'library', ...more] = model.split('/').toReversed();
  const isFine =
    more.length === 0 &&
    /^\w[\w.-]*$/.test(name) &&
    /^\w[\w-]*$/.test(namespace) &&
    Math.max(name.length, namespace.length) <= PART_LENGTH_MAX;
  if (!isFine) {
    throw new WeldlineError(
      'publish.rejected',
      `Ollama does not take the name ${model}: it is name or namespace/name, each of at most ` +
        `${PART_LENGTH_MAX} letters, digits, "_", "-" and, in the name, ".".`,
    );
  }
  return namespace === 'library' ? name : `${namespace}/${name}`;
}
