import { join } from 'node:path';
import { readCheckpointSettings } from '../conversion/gguf/check-metadata.ts';
import { readChatTemplate, renderChat } from '../evaluation/suites/chat-template.ts';
import { type Modelfile, modelfileOf } from '../publishers/ollama/modelfile.ts';
import { readGgufHeader } from '../tools/gguf/read-gguf-header.ts';

/**
 * The Modelfile of a finished GGUF conversion, for Ollama and for whoever has the directory.
 *
 * @param options.directory of the conversion
 * @param options.ggufFiles its GGUF files, relative, in their order
 * @param options.checkpoint directory of the merged checkpoint, which knows how it is asked
 * @param options.license SPDX id or the base's own name of its licence
 * @throws WeldlineError `evaluate.template-failed`, `checkpoint.config-invalid`, `disk.read-failed`
 */
export async function modelfileFor(options: {
  readonly directory: string;
  readonly ggufFiles: readonly string[];
  readonly checkpoint: string;
  readonly license?: string | undefined;
}): Promise<Modelfile> {
  const { directory, ggufFiles, checkpoint, license } = options;
  const [file] = ggufFiles;
  const header = file === undefined ? undefined : await readGgufHeader(join(directory, file));
  const { generation } = await readCheckpointSettings(checkpoint);
  const template = await readChatTemplate(checkpoint);
  return modelfileOf({
    ...{ ggufFiles, generation, metadata: header?.metadata ?? {} },
    ...(license !== undefined && { license }),
    ...(template && {
      chat: {
        source: template.source,
        tokens: template.tokens,
        render: (messages, addGenerationPrompt) =>
          renderChat(template, messages, addGenerationPrompt),
      },
    }),
  });
}
