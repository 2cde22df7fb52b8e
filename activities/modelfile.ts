import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readGguf } from '../conversion/gguf/gguf-model.ts';
import { readChatTemplate, renderChat } from '../evaluation/suites/chat-template.ts';
import { type Modelfile, modelfileOf } from '../publishers/ollama/modelfile.ts';

/**
 * The Modelfile of a GGUF conversion, which makes a model of Ollama of it.
 *
 * @param checkpoint directory of what was converted: its chat template and generation settings
 */
export async function modelfileFor(
  conversion: string,
  checkpoint: string,
  license: string | undefined,
): Promise<Modelfile> {
  const { files, metadata } = await readGguf(conversion);
  const template = await readChatTemplate(checkpoint);
  return modelfileOf({
    ggufFiles: files.map((file) => basename(file)),
    metadata,
    ...(template && {
      chat: {
        source: template.source,
        tokens: template.tokens,
        render: (messages, addGenerationPrompt) =>
          renderChat(template, messages, addGenerationPrompt),
      },
    }),
    generation: await readGenerationConfig(checkpoint),
    ...(license === undefined ? {} : { license }),
  });
}

/** A model without one has no settings of its own; the merge has checked what is there. */
async function readGenerationConfig(checkpoint: string): Promise<Record<string, unknown>> {
  const text = await readFile(join(checkpoint, 'generation_config.json'), 'utf8').catch(() => '{}');
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
