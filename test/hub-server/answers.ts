import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Refusal } from './access.ts';
import type { Fault } from './faults.ts';

/** Faults that replace the whole answer. */
export function answerFault(response: ServerResponse, fault: Fault | undefined): boolean {
  if (fault?.kind !== 'status') return false;
  response.writeHead(fault.status ?? 500, fault.headers).end();
  return true;
}

export function refuse(response: ServerResponse, refusal: Refusal): void {
  response.writeHead(refusal.status, {
    'content-type': 'application/json',
    'x-error-message': refusal.message,
    ...(refusal.errorCode === '' ? {} : { 'x-error-code': refusal.errorCode }),
  });
  response.end(JSON.stringify({ error: refusal.message }));
}

export function sendJson(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
  response.end(JSON.stringify(value));
}

export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

export async function readJson<T>(request: IncomingMessage): Promise<Partial<T>> {
  const text = (await readBody(request)).toString('utf8');
  return JSON.parse(text || '{}') as Partial<T>;
}

/** A refusal on its way out of a handler. */
export class Refused extends Error {
  readonly refusal: Refusal;

  constructor(status: number, message: string, errorCode = '') {
    super(message);
    this.refusal = { status, message, errorCode };
  }
}
