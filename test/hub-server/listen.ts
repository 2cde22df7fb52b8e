import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
) => void | Promise<void>;

/** Starts a server on the loopback interface; port 0 picks a free one. */
export async function listen(port: number, handler: Handler): Promise<Server> {
  const server = createServer(async (request, response) => {
    try {
      await handler(request, response, new URL(request.url ?? '/', originOf(server)));
    } catch (error) {
      // A fault of the test server itself: visible in the test, not a hanging request.
      response.destroy(error as Error);
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return server;
}

export function originOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // Stalled connections would keep it open.
  server.closeAllConnections();
  await closed;
}
