import type { DataConverter, Payload, PayloadCodec } from '@temporalio/common';
import { toFailure } from '../activities/failures.ts';
import { EncryptionCodec } from './payload-codec.ts';
import type { PayloadKeys } from './payload-keys.ts';
import { ENCODED_FAILURES } from './workflow-bundle.ts';

/** How workers turn values into what the server stores. Without keys too: to say what they lack. */
export function workerDataConverter(keys: PayloadKeys): DataConverter {
  return {
    payloadCodecs: [withFailures(new EncryptionCodec(keys))],
    ...(keys.current === undefined ? {} : { failureConverterPath: ENCODED_FAILURES }),
  };
}

/** What fails in a worker must keep its code, and whether a person can mend it. */
function withFailures(codec: PayloadCodec): PayloadCodec {
  return {
    encode: (payloads: Payload[]) => codec.encode(payloads),
    decode: async (payloads: Payload[]) => {
      try {
        return await codec.decode(payloads);
      } catch (error) {
        throw toFailure(error);
      }
    },
  };
}
