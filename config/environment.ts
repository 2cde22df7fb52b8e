import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { CiIdentity } from './ci-identity.ts';
import { parseSize } from './parse-size.ts';
import { readPublishing } from './publish-environment.ts';
import { Secret } from './secret.ts';
import { expandHome, type Get, invalid, readEndpoint, toPath } from './variables.ts';
import { readWorkerEnvironment, type WorkerEnvironment } from './worker-environment.ts';

export type Variables = Readonly<Record<string, string | undefined>>;

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Everything weldline takes from the environment, checked. Paths are absolute. */
export interface Environment {
  /** Where weldline keeps its workspace and embedded server. */
  home: string;
  /** Programs that weldline installed; `tools` in its home by default. */
  toolsDirectory: string;
  hub: {
    /** Without a trailing slash. */
    endpoint: string;
    token?: Secret;
    /** The cache that Hugging Face tools share, `~/.cache/huggingface/hub` by default. */
    cacheDirectory: string;
  };
  /** The user named a Temporal server or profile, so weldline must not start its own. */
  temporalConfigured: boolean;
  /** What its workers do, and how. */
  worker: WorkerEnvironment;
  /** Holds the keys that encrypt what the Temporal server stores; absent: nothing is encrypted. */
  payloadKeysFile?: string;
  /** Worker threads of a merge; undefined leaves it to the merge. */
  threads?: number;
  memoryBudgetBytes?: number;
  /** How long a program that converts or evaluates may print nothing; undefined leaves it to each. */
  stallTimeoutMs?: number;
  logLevel: LogLevel;
  /** False when NO_COLOR asks for none; whether there is a terminal is the command's affair. */
  color: boolean;
  ci: boolean;
  /**
   * The Python to use instead of the first that fits on PATH. One that has torch, transformers, PEFT
   * or llm-compressor in versions that weldline knows is used as it is.
   */
  python?: string;
  /** Directory of a llama.cpp of the user's own, to use instead of one on PATH or installed. */
  llamaCpp?: string;
  /** Key for the OpenAI-compatible endpoint of a recipe. */
  endpointKey?: Secret;
  /** The key that `sign: key` signs with. */
  signing?: {
    /** Absolute path of a PEM file. */
    keyFile: string;
    passphrase?: Secret;
  };
  /** Whom `sign: keyless` signs as. */
  identity?: CiIdentity;
  /** S3 servers other than AWS; credentials are found by the SDK. */
  s3: { endpoint?: string };
  /** Directory of Docker's `config.json`, which has credentials of registries. */
  dockerConfig: string;
  /** MLflow's server, and who asks it. */
  mlflow: { trackingUri?: string; username?: string; password?: Secret; token?: Secret };
  /** Where Ollama listens: a URL. */
  ollamaEndpoint?: string;
  /** The Temporal CLI to use instead of the one on PATH or an installed one. */
  temporalCli?: string;
}

export const DEFAULT_HUB_ENDPOINT = 'https://huggingface.co';
const TEMPORAL_SERVER_VARIABLES = ['TEMPORAL_ADDRESS', 'TEMPORAL_PROFILE', 'TEMPORAL_CONFIG_FILE'];
/** More threads than any machine this runs on has; a larger number is a slip. */
const THREADS_MAX = 1024;

/** A day: what is silent for longer hangs. */
const STALL_SECONDS_MAX = 86_400;

/**
 * Reads and checks the environment; the only code that looks at `process.env`.
 *
 * @throws WeldlineError `config.invalid` that names the variable and what it may be
 */
export function readEnvironment(variables: Variables = process.env): Environment {
  const get = (name: string) => variables[name]?.trim() || undefined;
  const python = get('WELDLINE_PYTHON');
  const temporalCli = get('WELDLINE_TEMPORAL_CLI');
  const llamaCpp = get('WELDLINE_LLAMA_CPP');
  const endpointKey = get('WELDLINE_ENDPOINT_KEY');
  const payloadKeys = get('WELDLINE_PAYLOAD_KEYS');
  const threads = readThreads(get('WELDLINE_THREADS'));
  const memoryBudgetBytes = readMemoryBudget(get('WELDLINE_MEMORY_BUDGET'));
  const stallTimeoutMs = readStallTimeout(get('WELDLINE_STALL_TIMEOUT'));
  const home = toPath(
    'WELDLINE_HOME',
    get('WELDLINE_HOME') ?? join(xdg(get('XDG_DATA_HOME'), '.local/share'), 'weldline'),
  );
  return {
    home,
    toolsDirectory: toPath('WELDLINE_TOOLS', get('WELDLINE_TOOLS') ?? join(home, 'tools')),
    hub: readHub(get),
    temporalConfigured: TEMPORAL_SERVER_VARIABLES.some((name) => get(name) !== undefined),
    worker: readWorkerEnvironment(get),
    ...(payloadKeys && { payloadKeysFile: toPath('WELDLINE_PAYLOAD_KEYS', payloadKeys) }),
    ...(threads === undefined ? {} : { threads }),
    ...(memoryBudgetBytes === undefined ? {} : { memoryBudgetBytes }),
    ...(stallTimeoutMs === undefined ? {} : { stallTimeoutMs }),
    ...readPublishing(get),
    logLevel: readLogLevel(get('WELDLINE_LOG_LEVEL')),
    color: get('NO_COLOR') === undefined,
    ci: !['', '0', 'false'].includes((get('CI') ?? '').toLowerCase()),
    ...(python === undefined ? {} : { python: toCommand(python) }),
    ...(temporalCli === undefined ? {} : { temporalCli: toCommand(temporalCli) }),
    ...(llamaCpp === undefined ? {} : { llamaCpp: toPath('WELDLINE_LLAMA_CPP', llamaCpp) }),
    ...(endpointKey === undefined ? {} : { endpointKey: new Secret(endpointKey) }),
  };
}

/** What is not empty of the environment: Temporal's library takes an empty address for one. */
export function setVariables(variables: Variables = process.env): Record<string, string> {
  const set: Record<string, string> = {};
  for (const [name, value = ''] of Object.entries(variables)) {
    if (value.trim() !== '') set[name] = value.trim();
  }
  return set;
}

/** Secrets of weldline's own that no child program needs, and settings that would mislead one. */
const NOT_FOR_CHILDREN = new RegExp(
  `^(${[
    ...['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'TEMPORAL_.*'],
    ...['WELDLINE_ENDPOINT_KEY', 'WELDLINE_SIGNING_.*', 'WELDLINE_PAYLOAD_KEYS'],
    ...['MLFLOW_TRACKING_(PASSWORD|TOKEN)'],
    ...['AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)', 'SIGSTORE_ID_TOKEN'],
    ...['AWS_CONTAINER_AUTHORIZATION_TOKEN', 'OTEL_EXPORTER_OTLP_(.*_)?HEADERS'],
    ...['ACTIONS_ID_TOKEN_REQUEST_(URL|TOKEN)'],
  ].join('|')})$`,
);

/** The environment for a program that weldline runs: its own, less credentials, plus `additions`. */
export function childVariables(
  additions: Readonly<Record<string, string>> = {},
  variables: Variables = process.env,
): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(variables)) {
    if (value !== undefined && !NOT_FOR_CHILDREN.test(name)) kept[name] = value;
  }
  return { ...kept, ...additions };
}

/**
 * By the rules of the official clients, whose cache is shared: the newer name of a variable before
 * the older one, `~` and `$NAME` expanded.
 */
function readHub(get: Get): Environment['hub'] {
  const path = (name: string, fallback: string): string =>
    toPath(name, expandVariables(get(name) ?? fallback, get));
  const hubHome = path('HF_HOME', join(xdg(get('XDG_CACHE_HOME'), '.cache'), 'huggingface'));
  const token = get('HF_TOKEN') ?? readToken(path('HF_TOKEN_PATH', join(hubHome, 'token')));
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw invalid('HF_TOKEN', 'holds characters that no token has', 'one token, without spaces');
  }
  return {
    endpoint: readEndpoint('HF_ENDPOINT', get('HF_ENDPOINT') ?? DEFAULT_HUB_ENDPOINT),
    ...(token === undefined ? {} : { token: new Secret(token) }),
    cacheDirectory: path(
      get('HF_HUB_CACHE') === undefined ? 'HUGGINGFACE_HUB_CACHE' : 'HF_HUB_CACHE',
      join(hubHome, 'hub'),
    ),
  };
}

/** The token the Hugging Face tools saved, if there is one. */
function readToken(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim() || undefined;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) return undefined;
    throw new WeldlineError(
      'config.invalid',
      `The Hugging Face token file ${path} cannot be read (${(error as Error).message}). ` +
        'Make it readable, or set HF_TOKEN.',
      { cause: error },
    );
  }
}

function readThreads(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const threads = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  if (threads < 1 || threads > THREADS_MAX) {
    throw invalid('WELDLINE_THREADS', `is "${value}"`, `a whole number from 1 to ${THREADS_MAX}`);
  }
  return threads;
}

function readStallTimeout(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const seconds = /^\d{1,6}$/.test(value) ? Number(value) : 0;
  if (seconds >= 1 && seconds <= STALL_SECONDS_MAX) return seconds * 1000;
  const wanted = `whole seconds from 1 to ${STALL_SECONDS_MAX}`;
  throw invalid('WELDLINE_STALL_TIMEOUT', `is "${value}"`, wanted);
}

function readMemoryBudget(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  try {
    return parseSize(value);
  } catch (error) {
    throw invalid('WELDLINE_MEMORY_BUDGET', `is "${value}"`, 'a size such as 4GB', error);
  }
}

function readLogLevel(value: string | undefined): LogLevel {
  const level = LOG_LEVELS.find((name) => name === (value ?? 'info').toLowerCase());
  if (level === undefined) {
    throw invalid('WELDLINE_LOG_LEVEL', `is "${value}"`, `one of ${LOG_LEVELS.join(', ')}`);
  }
  return level;
}

/** The XDG specification says to ignore relative values. */
function xdg(value: string | undefined, fallback: string): string {
  return value !== undefined && isAbsolute(value) ? value : join(homedir(), fallback);
}

/** A bare name is looked up on PATH; anything with a slash is a path. */
function toCommand(value: string): string {
  const expanded = expandHome(value);
  return expanded.includes('/') ? resolve(expanded) : expanded;
}

/** `$NAME` and `${NAME}`; a name that is not set stays as it is, as in Python. */
function expandVariables(value: string, get: Get): string {
  return value.replace(
    /\$(?:(\w+)|\{(\w+)\})/g,
    (whole, bare: string | undefined, braced: string | undefined) =>
      get(bare ?? braced ?? '') ?? whole,
  );
}
