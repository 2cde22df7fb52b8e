import type { Client } from '@temporalio/client';

type Converter = Client['options']['loadedDataConverter'];
type Payload = Parameters<Converter['payloadConverter']['fromPayload']>[0];
type Failure = Parameters<Converter['failureConverter']['failureToError']>[0];

/**
 * A payload of a history or a description, as it was before codecs took it.
 * @returns undefined where there is none, or none that can be read: of another version, or encrypted
 *   with a key that is not here
 */
export async function decodePayload<T>(
  { options: { loadedDataConverter: converter } }: Client,
  payload: Payload | null | undefined,
): Promise<T | undefined> {
  if (payload == null) return undefined;
  try {
    return converter.payloadConverter.fromPayload<T>(await throughCodecs(converter, payload));
  } catch {
    return undefined;
  }
}

/** A failure as the error that it was, with the same errors in its `cause`. */
export async function decodeFailure(
  { options: { loadedDataConverter: converter } }: Client,
  failure: Failure,
): Promise<Error> {
  const { encodedAttributes } = failure;
  const decoded =
    encodedAttributes == null
      ? failure
      : { ...failure, encodedAttributes: await throughCodecs(converter, encodedAttributes) };
  return converter.failureConverter.failureToError(decoded, converter.payloadConverter);
}

async function throughCodecs({ payloadCodecs }: Converter, payload: Payload): Promise<Payload> {
  let decoded = payload;
  for (const codec of payloadCodecs.toReversed()) {
    decoded = (await codec.decode([decoded]))[0] ?? decoded;
  }
  return decoded;
}
