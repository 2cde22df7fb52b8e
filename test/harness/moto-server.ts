/** An S3 server for the tests of one file: moto, which keeps objects in memory. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const SERVICES_PYTHON = fileURLToPath(
  new URL('../../.services/python/bin/python', import.meta.url),
);

/** Lists come in pages of so many, so that tests need not make thousands of objects. */
export const MOTO_PAGE = 10;

/** Parts may be as small as this there, so that tests need not send megabytes. */
export const MOTO_PART_BYTES_MIN = 64 * 1024;

export interface MotoServer {
  /** `http://127.0.0.1:1234` */
  readonly url: string;
  stop(): Promise<void>;
}

/**
 * Ends when its standard input does, so that it cannot outlive who started it. moto looks at the
 * condition of a write and then writes, without a lock; real servers do both at once. And it takes a
 * body that was cut off for a whole one.
 */
const PROGRAM = `
import io, os, sys, threading
from moto.server import create_backend_app
from werkzeug.serving import run_simple

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
moto, lock = create_backend_app("s3"), threading.Lock()

def serve(environ, start_response):
    if environ["REQUEST_METHOD"] not in ("PUT", "POST", "DELETE"):
        return moto(environ, start_response)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if len(body) < length:
        start_response("400 Bad Request", [])
        return []
    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return list(moto(environ, start_response))

run_simple("127.0.0.1", 0, serve, threaded=True)
`;

/** What S3 clients of this process and of children find; moto takes any credentials. */
export const MOTO_VARIABLES = {
  AWS_ACCESS_KEY_ID: 'AKIAMOTOCANARYKEYID0',
  AWS_SECRET_ACCESS_KEY: 'moto-canary-secret-access-key',
  AWS_REGION: 'us-east-1',
  AWS_DEFAULT_REGION: 'us-east-1',
  AWS_EC2_METADATA_DISABLED: 'true',
} as const;

export async function startMoto(): Promise<MotoServer> {
  const child = spawn(SERVICES_PYTHON, ['-c', PROGRAM], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: {
      ...process.env,
      S3_UPLOAD_PART_MIN_SIZE: String(MOTO_PART_BYTES_MIN),
      MOTO_S3_DEFAULT_MAX_KEYS: String(MOTO_PAGE),
    },
  });
  const url = await addressOf(child);
  return {
    url,
    async stop() {
      if (child.exitCode !== null) return;
      const ended = once(child, 'exit');
      child.stdin?.end();
      await ended;
    },
  };
}

async function addressOf(child: ChildProcess): Promise<string> {
  const said: string[] = [];
  return new Promise((resolve, reject) => {
    // Read to the end: a full pipe would stop the server.
    createInterface({ input: child.stderr! }).on('line', (line) => {
      if (said.length < 100) said.push(line);
      const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? [];
      if (url !== undefined) resolve(url);
    });
    child.once('error', reject);
    child.once('exit', (code) =>
      reject(new Error(`moto ended with ${code}; run test/services/setup.py. ${said.join('\n')}`)),
    );
  });
}
