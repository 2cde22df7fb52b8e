import type { ChatShape } from './chat-shape.ts';

/**
 * A chat shape as Ollama's `TEMPLATE`: Go's `text/template` over `.Messages` and `.System`.
 *
 * All text of the model stands in quoted actions, so that no marker's trimming of spaces touches it.
 * A last message of the assistant stays open, since Ollama lets a model go on with it.
 */
export function goTemplateOf(shape: ChatShape): string {
  const { system, user, assistant } = shape;
  const framed = (text: string): string => quoted(system.open) + text + quoted(system.close);
  const inside = {
    'first-user': `{{ if $system }}${framed('{{ $system }}{{ $system = "" }}')}{{ end }}`,
    'last-user': `{{ if and $last $.System }}${framed('{{ $.System }}')}{{ end }}`,
    ...{ turn: '', always: '' },
  }[system.place];
  const turns = [
    ...(system.place === 'turn' ? [['system', framed('{{ .Content }}')]] : []),
    ['user', `${quoted(user.open)}${inside}{{ .Content }}${quoted(user.close)}`],
    [
      'assistant',
      `${quoted(assistant.open)}{{ .Content }}` +
        (assistant.close === '' ? '' : `{{ if not $last }}${quoted(assistant.close)}{{ end }}`),
    ],
  ];
  const start = quoted(shape.start) + (system.place === 'always' ? framed('{{ .System }}') : '');
  return [
    ...(start === '' ? [] : [start]),
    ...(system.place === 'first-user' ? ['{{- $system := .System }}'] : []),
    '{{- range $index, $message := .Messages }}',
    '{{- $last := eq (len (slice $.Messages $index)) 1 }}',
    ...turns.map(
      ([role, text], at) => `{{- ${at === 0 ? '' : 'else '}if eq .Role "${role}" }}${text}`,
    ),
    '{{- end }}',
    ...(shape.prompt === ''
      ? []
      : [`{{- if and $last (ne .Role "assistant") }}${quoted(shape.prompt)}{{ end }}`]),
    '{{- end }}',
  ].join('\n');
}

/** An action that writes a text: Go's escapes are JSON's, and what does not print is escaped. */
function quoted(text: string): string {
  if (text === '') return '';
  const unprintable = /\p{C}|[^\P{Z} ]/gu;
  const escaped = JSON.stringify(text).replace(unprintable, (character) =>
    [...character]
      .map((each) => `\\U${(each.codePointAt(0) ?? 0).toString(16).padStart(8, '0')}`)
      .join(''),
  );
  return `{{ ${escaped} }}`;
}
