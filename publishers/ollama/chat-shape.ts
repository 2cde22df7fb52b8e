/** One message of a conversation. */
export interface ShapedMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** What a chat template makes of messages; throws where it refuses them. */
export type RenderMessages = (
  messages: readonly ShapedMessage[],
  addGenerationPrompt: boolean,
) => string;

interface Turn {
  readonly open: string;
  readonly close: string;
}

/**
 * How a model writes conversations, as far as turns can say it: constant text around each content.
 * Go templates can write that, and so can the templates of nearly all published chat models.
 */
export interface ChatShape {
  /** Before everything else. */
  readonly start: string;
  readonly user: Turn;
  readonly assistant: Turn;
  /** Behind the last message of somebody else: where the answer begins. */
  readonly prompt: string;
  /**
   * Where the system prompt stands: in a turn of its own where a conversation has one (`turn`) or
   * always (`always`, then empty), or within the first or the last turn of the user.
   */
  readonly system: Turn & { readonly place: 'turn' | 'always' | 'first-user' | 'last-user' };
  /** The system prompt of conversations that have none of their own. */
  readonly defaultSystem?: string;
  /** Whether the template knows system prompts; if not, they go before the first question. */
  readonly takesSystem: boolean;
}

const SYSTEM = { role: 'system', content: 'weldlinesystemA' } as const;
const QUESTION = { role: 'user', content: 'weldlineuserB' } as const;
const ANSWER = { role: 'assistant', content: 'weldlineassistantC' } as const;
const SECOND = { role: 'user', content: 'weldlineuserD' } as const;

/**
 * Conversations that decide whether a shape is right. Their texts neither begin nor end with spaces:
 * many templates cut those off, which Go templates cannot.
 */
const PROBES: readonly (readonly ShapedMessage[])[] = (() => {
  const system = { role: 'system', content: 'Be brief.\n\nUse "quotes" & {{ braces }}.' } as const;
  const question = { role: 'user', content: 'What is 2 + 2?\nAnd <b>3</b>?' } as const;
  const answer = { role: 'assistant', content: 'Four. 日本 🎉\n\n- list' } as const;
  const turns = [question, answer, { role: 'user', content: 'Thanks! {% raw %}' } as const];
  const more = [...turns, { role: 'assistant', content: 'Yes' } as const, question];
  return [[question], turns, more, [system, question], [system, ...turns], [system, ...more]];
})();

/**
 * Finds the shape of a chat template by rendering: first marks, to see what stands around them, and
 * then conversations, which must come out to the letter.
 *
 * @param bos text of the token that begins a sequence, if there is one
 * @returns undefined for a template that does more than writing turns
 */
export function findChatShape(render: RenderMessages, bos: string): ChatShape | undefined {
  const turns = findTurns(render, bos);
  if (turns === undefined) return undefined;
  // Some models begin each turn with the token that also begins a sequence.
  const firstToken = turns.assistant.open.startsWith(bos) ? '' : bos;
  return placeSystem(turns, render, firstToken).find((shape) =>
    PROBES.every((probe) => {
      if (!shape.takesSystem && probe[0]?.role === 'system') return true;
      return attempt(() => render(probe, true)) === writeConversation(shape, probe);
    }),
  );
}

/** What the Go template of a shape makes of a conversation that ends with the user's turn. */
export function writeConversation(shape: ChatShape, messages: readonly ShapedMessage[]): string {
  const own = messages.filter(({ role }) => role === 'system').map(({ content }) => content);
  const system = own.length > 0 ? own.join('\n\n') : (shape.defaultSystem ?? '');
  const framed = system === '' ? '' : shape.system.open + system + shape.system.close;
  const turns = messages.filter(({ role }) => role !== 'system');
  const { place } = shape.system;
  const inTurn = { 'first-user': 0, 'last-user': turns.length - 1, turn: -1, always: -1 }[place];
  const always = shape.system.open + system + shape.system.close;
  const text = turns.map(({ role, content }, index) => {
    const { open, close } = role === 'user' ? shape.user : shape.assistant;
    return open + (index === inTurn ? framed : '') + content + close;
  });
  const head = place === 'always' ? always : place === 'turn' ? framed : '';
  return shape.start + head + text.join('') + shape.prompt;
}

type Turns = Pick<ChatShape, 'user' | 'assistant' | 'prompt'> & {
  /** All before the first turn of a conversation without a system prompt. */
  readonly head: string;
};

function findTurns(render: RenderMessages, bos: string): Turns | undefined {
  const around = (messages: readonly ShapedMessage[], prompt: boolean) =>
    textAround(messages, render, prompt);
  const [opening, userClose] = around([QUESTION], false) ?? [];
  const [, prompted] = around([QUESTION], true) ?? [];
  const [, , assistantClose] = around([QUESTION, ANSWER], false) ?? [];
  const [, toAnswer, toUser] = around([QUESTION, ANSWER, SECOND], false) ?? [];
  const assistantOpen = cutStart(toAnswer, userClose);
  const userOpen = cutStart(toUser, assistantClose);
  const prompt = cutStart(prompted, userClose);
  const head = cutEnd(opening, userOpen);
  if (userClose === undefined || assistantClose === undefined || userOpen === undefined) return;
  if (assistantOpen === undefined || prompt === undefined || head === undefined) return;
  // Some begin each question with a new sequence: the first is the model's own, as in others.
  const isEach = bos !== '' && userOpen.startsWith(bos) && !assistantOpen.startsWith(bos);
  return {
    head: isEach ? head + bos : head,
    user: { open: isEach ? userOpen.slice(bos.length) : userOpen, close: userClose },
    assistant: { open: assistantOpen, close: isEach ? assistantClose + bos : assistantClose },
    prompt,
  };
}

/** The shapes that agree with what a template makes of one system prompt, likelier ones first. */
function placeSystem(turns: Turns, render: RenderMessages, bos: string): readonly ChatShape[] {
  const { head, ...rest } = turns;
  const [before, between] = textAround([SYSTEM, QUESTION], render, false) ?? [];
  if (before === undefined || between === undefined) {
    const system = { place: 'first-user', open: '', close: '\n\n' } as const;
    return [{ ...rest, start: head, system, takesSystem: false }];
  }
  const shapes: ChatShape[] = [];
  const base = { ...rest, takesSystem: true };
  const close = cutEnd(between, turns.user.open);
  const open = cutStart(before, head);
  if (close !== undefined) {
    if (open !== undefined) {
      shapes.push({ ...base, start: head, system: { place: 'turn', open, close } });
    }
    const start = before.startsWith(bos) ? bos : '';
    const always = { open: before.slice(start.length), close };
    if (head === before + close) {
      shapes.push({ ...base, start, system: { place: 'always', ...always } });
    }
    const defaultSystem = cutEnd(cutStart(head, before), close);
    if (defaultSystem) {
      shapes.push({ ...base, start, system: { place: 'turn', ...always }, defaultSystem });
    }
  }
  const inside = cutStart(before, head + turns.user.open);
  if (inside !== undefined) {
    for (const place of ['first-user', 'last-user'] as const) {
      shapes.push({ ...base, start: head, system: { place, open: inside, close: between } });
    }
  }
  return shapes;
}

/** The text before, between and behind the contents; undefined unless each is there just once. */
function textAround(
  messages: readonly ShapedMessage[],
  render: RenderMessages,
  addGenerationPrompt: boolean,
): readonly string[] | undefined {
  const text = attempt(() => render(messages, addGenerationPrompt));
  if (text === undefined) return undefined;
  const parts: string[] = [];
  let rest = text;
  for (const { content } of messages) {
    const [before, behind, ...more] = rest.split(content);
    if (before === undefined || behind === undefined || more.length > 0) return undefined;
    parts.push(before);
    rest = behind;
  }
  return [...parts, rest];
}

function attempt(make: () => string): string | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

function cutStart(text: string | undefined, start: string | undefined): string | undefined {
  if (text === undefined || start === undefined || !text.startsWith(start)) return undefined;
  return text.slice(start.length);
}

function cutEnd(text: string | undefined, end: string | undefined): string | undefined {
  if (text === undefined || end === undefined || !text.endsWith(end)) return undefined;
  return text.slice(0, text.length - end.length);
}
