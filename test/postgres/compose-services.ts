/** The services of docker-compose.yml as processes of this machine: same commands, same settings. */
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { findFreePort } from '../../workers/free-port.ts';
import { commandOf, PASSWORD, variablesOf } from '../deploy/compose-processes.ts';
import { ROOT } from '../deploy/compose-project.ts';
import { ServiceProcess } from '../harness/service-process.ts';
import { waitFor } from '../harness/wait-for.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';

/** `nobody`: PostgreSQL refuses to run as root. */
const UNPRIVILEGED = { uid: 65_534, gid: 65_534 };
const START_TIMEOUT_MS = 120_000;

/** A database in `directory/data`. */
export class Postgres extends ServiceProcess {
  readonly port: number;
  readonly #programs: string;

  private constructor(directory: string, programs: string, port: number) {
    super({
      program: join(programs, 'postgres'),
      args: [
        ...['-D', join(directory, 'data'), '-p', String(port)],
        ...['-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=${directory}`],
      ],
      env: {},
      logPath: join(directory, 'postgres.log'),
      user: process.getuid?.() === 0 ? UNPRIVILEGED : undefined,
    });
    this.port = port;
    this.#programs = programs;
  }

  /** @param programs directory of `postgres`, `initdb`, `pg_isready`, `pg_dumpall` and `psql` */
  static async create(directory: string, programs: string, port?: number): Promise<Postgres> {
    await mkdir(directory, { recursive: true });
    const passwordFile = join(directory, 'password');
    await writeFile(passwordFile, PASSWORD);
    const asRoot = process.getuid?.() === 0;
    if (asRoot) await execa('chown', ['-R', 'nobody:nogroup', directory]);
    const initdb = [
      ...['-D', join(directory, 'data'), '--username=temporal', `--pwfile=${passwordFile}`],
      ...['--auth=scram-sha-256', '--encoding=UTF8', '--no-locale'],
    ];
    await execa(join(programs, 'initdb'), initdb, asRoot ? UNPRIVILEGED : {});
    return new Postgres(directory, programs, port ?? (await findFreePort()));
  }

  /** Resolves when the health check of the service passes. */
  async answers(): Promise<void> {
    const isReady = async (): Promise<true | undefined> => {
      const { exitCode } = await execa(
        join(this.#programs, 'pg_isready'),
        ['--host=127.0.0.1', `--port=${this.port}`, '--username=temporal'],
        { reject: false },
      );
      return exitCode === 0 || undefined;
    };
    await waitFor('PostgreSQL', isReady, START_TIMEOUT_MS);
  }

  /** Writes all of it into a file, as docs/production.md does. */
  async dump(path: string): Promise<void> {
    await this.#run('pg_dumpall', `--file=${path}`);
  }

  async restore(path: string): Promise<void> {
    await this.#run('psql', '--dbname=postgres', '--quiet', `--file=${path}`);
  }

  async #run(program: string, ...args: readonly string[]): Promise<void> {
    const connection = ['--host=127.0.0.1', `--port=${this.port}`, '--username=temporal'];
    await execa(join(this.#programs, program), [...connection, ...args], {
      env: { PGPASSWORD: PASSWORD },
    });
  }
}

/** The server on that database. */
export class TemporalServer extends ServiceProcess {
  readonly address: string;
  readonly #directory: string;
  readonly #databasePort: number;
  readonly #health: string;

  private constructor(
    directory: string,
    programs: string,
    databasePort: number,
    ports: readonly [number, number, ...number[]],
  ) {
    const [grpc, http, ...others] = ports.map(String) as [string, string, ...string[]];
    const names = ['FRONTEND_MEMBERSHIP', ...OTHER_SERVICES.flatMap(bothPorts)];
    super({
      program: join(programs, 'server'),
      args: ['start'],
      env: variablesOf('temporal', {
        POSTGRES_SEEDS: '127.0.0.1',
        DB_PORT: String(databasePort),
        BIND_ON_IP: '127.0.0.1',
        DYNAMIC_CONFIG_FILE_PATH: join(ROOT, 'deploy/temporal-dynamic-config.yaml'),
        FRONTEND_GRPC_PORT: grpc,
        FRONTEND_HTTP_PORT: http,
        ...Object.fromEntries(names.map((name, index) => [`${name}_PORT`, others[index] ?? ''])),
      }),
      logPath: join(directory, 'temporal.log'),
    });
    this.address = `127.0.0.1:${grpc}`;
    this.#directory = directory;
    this.#databasePort = databasePort;
    this.#health = `http://127.0.0.1:${http}/api/v1/system-info`;
  }

  /** @param programs directory of what `go install` made of `cmd/server` and `cmd/tools/sql` */
  static async create(
    directory: string,
    programs: string,
    databasePort: number,
  ): Promise<TemporalServer> {
    const tools = join(directory, 'bin');
    await mkdir(tools, { recursive: true });
    await symlink(join(programs, 'sql'), join(tools, 'temporal-sql-tool'));
    await symlink((await testTemporalCli()).path, join(tools, 'temporal'));
    const ports: number[] = [];
    while (ports.length < 3 + 2 * OTHER_SERVICES.length) {
      const port = await findFreePort();
      if (!ports.includes(port)) ports.push(port);
    }
    return new TemporalServer(directory, programs, databasePort, ports as [number, number]);
  }

  /** Runs the schema service; what it prints. */
  setUpSchema(): Promise<string> {
    return this.#runScript('temporal-schema', {
      SQL_HOST: '127.0.0.1',
      SQL_PORT: String(this.#databasePort),
    });
  }

  /** Runs the namespace service; what it prints. */
  registerNamespace(): Promise<string> {
    return this.#runScript('temporal-namespace', { TEMPORAL_ADDRESS: this.address });
  }

  async #runScript(service: string, changes: Readonly<Record<string, string>>): Promise<string> {
    const [shell = '', script = ''] = commandOf(service);
    const env = variablesOf(service, {
      ...changes,
      PATH: `${join(this.#directory, 'bin')}:${process.env['PATH']}`,
    });
    const { all } = await execa(shell, [join(ROOT, script)], { env, extendEnv: false, all: true });
    return all;
  }

  /** Resolves when the health check of the service passes. */
  async answers(): Promise<void> {
    const isHealthy = async (): Promise<true | undefined> => {
      const response = await fetch(this.#health).catch(() => undefined);
      return response?.ok === true ? true : undefined;
    };
    await waitFor('the Temporal server', isHealthy, START_TIMEOUT_MS);
  }
}

const OTHER_SERVICES = ['HISTORY', 'MATCHING', 'WORKER'];

function bothPorts(service: string): string[] {
  return [`${service}_GRPC`, `${service}_MEMBERSHIP`];
}
