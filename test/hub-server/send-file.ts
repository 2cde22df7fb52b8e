import { open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './faults.ts';

const PIECE_BYTES = 64 * 1024;

export interface SendFileOptions {
  readonly absolutePath: string;
  readonly size: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly fault: Fault | undefined;
  readonly bytesPerSecond: number | undefined;
  readonly onSent: (bytes: number) => void;
}

/** Answers GET or HEAD with the file or the one range of it that was asked for. */
export async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  options: SendFileOptions,
): Promise<void> {
  const { size, fault } = options;
  const header = fault?.kind === 'ignore-range' ? undefined : request.headers.range;
  const range = parseRange(header, size);
  if (range === 'unsatisfiable') {
    response.writeHead(416, { 'content-range': `bytes */${size}` }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: size };
  response.writeHead(range === undefined ? 200 : 206, {
    ...options.headers,
    'accept-ranges': 'bytes',
    // Without a length the body is chunked, and can end early in good order.
    ...(fault?.kind === 'short' ? {} : { 'content-length': String(end - start) }),
    ...(range === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${size}` }),
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  await sendBytes(response, options, start, end);
}

async function sendBytes(
  response: ServerResponse,
  options: SendFileOptions,
  start: number,
  end: number,
): Promise<void> {
  const { fault, onSent } = options;
  const rate = fault?.kind === 'slow' ? fault.bytesPerSecond : options.bytesPerSecond;
  const cut = cutOffset(fault, start, end);
  const handle = await open(options.absolutePath);
  try {
    for (let position = start; position < cut; ) {
      const length = Math.min(PIECE_BYTES, cut - position);
      const piece = Buffer.alloc(length);
      await handle.read(piece, 0, length, position);
      const wrong = start + (fault?.afterBytes ?? 0) - position;
      if (fault?.kind === 'corrupt' && wrong >= 0 && wrong < length) piece[wrong]! ^= 0xff;
      if (!(await write(response, piece))) return;
      position += length;
      onSent(length);
      if (rate !== undefined) await sleep((length / rate) * 1000);
    }
  } finally {
    await handle.close();
  }
  if (fault?.kind === 'stall') return;
  if (fault?.kind === 'drop') response.destroy();
  else response.end();
}

function cutOffset(fault: Fault | undefined, start: number, end: number): number {
  const cuts = fault?.kind === 'stall' || fault?.kind === 'drop' || fault?.kind === 'short';
  return cuts ? Math.min(end, start + (fault.afterBytes ?? 0)) : end;
}

/** False once the client has gone. */
async function write(response: ServerResponse, piece: Buffer): Promise<boolean> {
  if (response.destroyed) return false;
  return new Promise((resolve) => {
    const onClose = () => resolve(false);
    response.once('close', onClose);
    response.write(piece, (error) => {
      response.off('close', onClose);
      resolve(!error);
    });
  });
}

function parseRange(
  header: string | undefined,
  size: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? '');
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = match[2] === '' ? size : Math.min(Number(match[2]) + 1, size);
  return start >= size || end <= start ? 'unsatisfiable' : { start, end };
}
