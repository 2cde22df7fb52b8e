import { Command, Option } from 'commander';
import { COMBINATION_METHODS, MAJORITY_SIGNS } from '../engine/plan/combination.ts';
import { MERGE_ONTO } from '../engine/plan/merge-onto-choices.ts';
import { ENGINE_VERSION } from '../engine/version.ts';
import type { ApproveCommand } from './approve.ts';
import { CODEC } from './codec-command.ts';
import { addCommand, type CommandSpec, collect, exampleText } from './command-spec.ts';
import { CANCEL, LIST, LOGS, PAUSE, RESUME, RETRY, STATUS, WATCH } from './control-commands.ts';
import type { MergeCommand } from './merge.ts';
import type { PlanCommand } from './plan.ts';
import { PROMOTE, PRUNE, ROLLBACK } from './published-commands.ts';
import type { ReleaseCommand } from './release.ts';
import type { ReproduceCommand } from './reproduce.ts';
import { addScheduleCommands } from './schedule-commands.ts';
import type { VerifyCommand } from './verify.ts';
import type { WorkerCommand } from './worker.ts';

const MODEL_FORMS = 'a directory, hf://org/name, s3://, oci:// or https://';

function mergeOptions(command: Command): Command {
  return command
    .option('--adapter <model>', `adapter: ${MODEL_FORMS}; may be repeated`, collect)
    .addOption(
      new Option(
        '--combine <method>',
        'of several adapters: linear or cat, their weighted sum; sequential, one after the other; ' +
          'svd, the sum cut to a rank; ties, dare_linear, dare_ties or magnitude_prune, of deltas ' +
          'thinned out; peft_*, the numbers of PEFT',
      ).choices([...COMBINATION_METHODS]),
    )
    .option('--weights <numbers>', 'what each adapter is multiplied by, e.g. 1,-0.5 (default: 1)')
    .option('--rank <number>', 'that svd keeps (default: the largest of an adapter)')
    .option('--density <numbers>', 'share of each delta that stays, one for all or e.g. 0.2,0.3')
    .option('--seed <number>', 'decides what DARE keeps (default: 0)')
    .addOption(
      new Option('--majority-sign <rule>', 'whose sign wins (default: total)').choices([
        ...MAJORITY_SIGNS,
      ]),
    )
    .addOption(
      new Option(
        '--dtype <dtype>',
        'dtype of all output tensors (default: as in the base)',
      ).choices(['bfloat16', 'float16', 'float32']),
    )
    .addOption(
      new Option(
        '--merge-onto <weights>',
        'the weights that the adapter is merged onto: original; of a quantised base dequantized; of ' +
          'a 16-bit base simulated_nf4, what bitsandbytes would make of it',
      ).choices([...MERGE_ONTO]),
    )
    .option('--max-shard-size <size>', "largest output file, e.g. 5GB (default: the base's files)")
    .option('--threads <count>', 'threads that merge (default: the processors and two, at most 8)')
    .option('--memory-budget <size>', 'memory the merge may use (default: 200MB, streaming 400MB)');
}

const RELEASE: CommandSpec<[string, ReleaseCommand]> = {
  usage: 'release <recipe>',
  description: 'release what a recipe describes; run again, it goes on where it stopped',
  examples: ['weldline release recipe.yaml', 'weldline release recipe.yaml --json > result.json'],
  options: (command) =>
    command.option('--detach', 'start it and return (with a Temporal server of your own)'),
  run: async (output, recipe, options) =>
    (await import('./release.ts')).runRelease(recipe, options, output),
};

const APPROVE: CommandSpec<[string | undefined, ApproveCommand]> = {
  usage: 'approve [release]',
  description: 'say yes to a release that waits for a person (default: the last one)',
  examples: [
    'weldline approve',
    'weldline approve support-assistant-1.2.0 --override "known: the suite has two wrong answers"',
  ],
  options: (command) =>
    command
      .option('--override <reason>', 'publish what the gate refused too; the reason is recorded')
      .option('--by <name>', 'who says so (default: the name of the user)'),
  run: async (output, release, options) =>
    (await import('./approve.ts')).runApprove(release, options, output),
};

const PLAN: CommandSpec<[string | undefined, PlanCommand]> = {
  usage: 'plan [recipe]',
  description: 'show what a merge would do: tensors, bytes, memory, disk, what is lost, warnings',
  examples: [
    'weldline plan recipe.yaml',
    'weldline plan --base ./llama --adapter ./adapter --tensors',
    'weldline plan recipe.yaml --digest      also reads a large base, for the digest of the plan',
  ],
  options: (command) =>
    mergeOptions(command.option('--base <model>', `base: ${MODEL_FORMS}`))
      .option('--tensors', 'list every tensor')
      .option(
        '--digest',
        "compute the plan's digest, which reads all files (default: if under 1 GB is unread)",
      )
      .option(
        '--retention',
        'also of a base on a hub: read rows of it, to measure how much of the delta survives rounding',
      ),
  run: async (output, recipe, options) =>
    (await import('./plan.ts')).runPlan(recipe, options, output),
};

const MERGE: CommandSpec<[MergeCommand]> = {
  usage: 'merge',
  description: 'merge adapters into a base in this process, without a server',
  examples: [
    'weldline merge --base ./llama --adapter ./adapter --output ./merged',
    'weldline merge --base hf://org/base --adapter ./adapter --output ./merged --dtype bfloat16',
    'weldline merge --base ./llama --adapter ./a --adapter ./b --combine linear --weights 1,0.5 ' +
      '--output ./merged',
  ],
  options: (command) =>
    mergeOptions(command.requiredOption('--base <model>', `base: ${MODEL_FORMS}`))
      .option(
        '--stream',
        'read the weights of a base elsewhere as they are merged: store none of it',
      )
      .requiredOption('--output <directory>', 'where the merged checkpoint goes'),
  run: async (output, options) => (await import('./merge.ts')).runMerge(options, output),
};

const VERIFY: CommandSpec<[string, VerifyCommand]> = {
  usage: 'verify <target>',
  description:
    'check a release, merged checkpoint or conversion, in a directory or at a URI, by all that it ' +
    'says of itself',
  examples: [
    'weldline verify ./releases/merged-llama-1.2.0-adapter-support-1',
    'weldline verify hf://org/llama-support@v1.2.0 --key release-key.pub.pem',
    'weldline verify ./release --base ./llama           also plans again and recomputes rows',
  ],
  options: (command) =>
    command
      .option('--key <file>', 'public key (PEM) that must have made its signature')
      .option('--identity <name>', 'who must have signed without a key, as Sigstore certified them')
      .option('--issuer <url>', 'who vouches for the identity')
      .option('--trust-root <file>', 'trusted_root.json to believe (default: the public Sigstore)')
      .option('--base <model>', 'the base it was merged onto: a directory or a URI')
      .option('--fetch', 'bring a base here that is not on this machine'),
  run: async (output, target, options) =>
    (await import('./verify.ts')).runVerify(target, options, output),
};

const REPRODUCE: CommandSpec<[string, ReproduceCommand]> = {
  usage: 'reproduce <target>',
  description: 'make the merge of a release again from its pinned inputs, and compare every file',
  examples: [
    'weldline reproduce ./releases/merged-llama-1.2.0-adapter-support-1',
    'weldline reproduce s3://models/support/merged-llama-1.2.0-adapter-support-1 --base ./llama',
  ],
  options: (command) =>
    command
      .option('--base <model>', 'the base: a directory or a URI (default: where it came from)')
      .option('--output <directory>', 'keep what was merged there (default: it is removed)')
      .option(
        '--threads <count>',
        'threads that merge (default: the processors and two, at most 8)',
      ),
  run: async (output, target, options) =>
    (await import('./reproduce.ts')).runReproduce(target, options, output),
};

const DOCTOR: CommandSpec<[string | undefined]> = {
  usage: 'doctor [recipe]',
  description: 'say what this machine has, and what it lacks for a recipe',
  examples: ['weldline doctor', 'weldline doctor recipe.yaml --json'],
  run: async (output, recipe) => (await import('./doctor.ts')).runDoctor(recipe, output),
};

const TOOLS_INSTALL: CommandSpec<[string[]]> = {
  usage: 'install <purposes...>',
  description: 'install what gguf, awq (also gptq) or eval needs, in pinned versions',
  examples: ['weldline tools install gguf', 'weldline tools install gguf awq eval'],
  run: async (output, purposes) =>
    (await import('./tools-install.ts')).runToolsInstall(purposes, output),
};

const WORKER: CommandSpec<[WorkerCommand]> = {
  usage: 'worker',
  description: 'work on releases until stopped',
  examples: [
    'TEMPORAL_ADDRESS=temporal:7233 weldline worker',
    'TEMPORAL_ADDRESS=temporal:7233 weldline worker --role merge --role convert',
  ],
  options: (command) =>
    command.option(
      '--role <role>',
      'control, merge, convert or gpu; may be repeated (default: all)',
      collect,
    ),
  run: async (output, options) => (await import('./worker.ts')).runWorker(options, output),
};

const EXIT_STATUS = `
Exit status: 0 done, 1 failed, 2 wrong command line or recipe, 3 waits for a person,
130 interrupted. WELDLINE_HOME is where the workspace is; TEMPORAL_ADDRESS names a server,
without it weldline runs its own.`;

/** The command line: names, options, help. */
export function buildProgram(): Command {
  const program = new Command('weldline')
    .description('Durable release pipelines for LoRA adapters.')
    .version(ENGINE_VERSION)
    .showHelpAfterError('(see --help)')
    .exitOverride();
  const examples = [
    'weldline release recipe.yaml            release what the recipe describes',
    'weldline status                         how far the last release is',
    'weldline resume                         go on after a crash, or when a cause is mended',
    'weldline merge --base ./llama --adapter ./adapter --output ./merged',
  ];
  program.addHelpText('after', `${exampleText(examples)}\n${EXIT_STATUS}`);
  addCommand(program, RELEASE);
  addCommand(program, STATUS);
  addCommand(program, LIST);
  addCommand(program, WATCH);
  addCommand(program, LOGS);
  addCommand(program, PAUSE);
  addCommand(program, RESUME);
  addCommand(program, RETRY);
  addCommand(program, APPROVE);
  addCommand(program, CANCEL);
  addCommand(program, PLAN);
  addCommand(program, MERGE);
  addCommand(program, VERIFY);
  addCommand(program, PROMOTE);
  addCommand(program, ROLLBACK);
  addCommand(program, PRUNE);
  addCommand(program, REPRODUCE);
  addCommand(program, WORKER);
  addCommand(program, CODEC);
  addCommand(program, DOCTOR);
  addScheduleCommands(program);
  const tools = program
    .command('tools')
    .description('programs that conversions and evaluation use');
  addCommand(tools, TOOLS_INSTALL);
  return program;
}
