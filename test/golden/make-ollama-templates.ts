/**
 * Makes test/golden/ollama-templates.json: what Ollama's own code reads of our Modelfiles, and what
 * its template engine (Go's text/template) makes of conversations with their templates.
 *
 *     node test/golden/make-ollama-templates.ts
 *
 * Needs Go, which fetches Ollama as a module.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { modelfileOf } from '../../publishers/ollama/modelfile.ts';
import {
  CONVERSATIONS,
  chatTemplates,
  modelfileInput,
} from '../publishers/ollama/chat-templates.ts';

const OLLAMA = 'v0.17.4';

const PROGRAM = `package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

type input struct {
	Conversations map[string][]api.Message
	Modelfiles    map[string]string
}

type output struct {
	Commands []parser.Command  \`json:"commands"\`
	Texts    map[string]string \`json:"texts"\`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var in input
	must(json.NewDecoder(os.Stdin).Decode(&in))
	out := map[string]output{}
	for name, text := range in.Modelfiles {
		file, err := parser.ParseFile(strings.NewReader(text))
		must(err)
		result := output{Commands: file.Commands, Texts: map[string]string{}}
		system, source := "", ""
		for _, command := range file.Commands {
			switch command.Name {
			case "system":
				system = command.Args
			case "template":
				source = command.Args
			}
		}
		if source != "" {
			parsed, err := template.Parse(source)
			must(err)
			for id, conversation := range in.Conversations {
				messages := append([]api.Message{}, conversation...)
				// As the server does before it writes a prompt.
				if messages[0].Role != "system" && system != "" {
					messages = append([]api.Message{{Role: "system", Content: system}}, messages...)
				}
				var b bytes.Buffer
				must(parsed.Execute(&b, template.Values{Messages: messages}))
				result.Texts[id] = b.String()
			}
		}
		out[name] = result
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(out))
}
`;

const modelfiles = Object.fromEntries(
  [...chatTemplates()].map(([name, template]) => [
    name,
    modelfileOf(modelfileInput(template)).text,
  ]),
);
const directory = mkdtempSync(join(tmpdir(), 'weldline-golden-'));
try {
  const go = (args: readonly string[], input = ''): string =>
    execFileSync('go', args, { cwd: directory, input, encoding: 'utf8', maxBuffer: 1 << 26 });
  writeFileSync(join(directory, 'main.go'), PROGRAM);
  go(['mod', 'init', 'golden']);
  go(['get', `github.com/ollama/ollama@${OLLAMA}`]);
  go(['mod', 'tidy']);
  const input = JSON.stringify({ Conversations: CONVERSATIONS, Modelfiles: modelfiles });
  const results = JSON.parse(go(['run', '.'], input)) as Record<string, object>;
  const versions = { ollama: OLLAMA, go: go(['env', 'GOVERSION']).trim() };
  const path = fileURLToPath(new URL('ollama-templates.json', import.meta.url));
  const cases = Object.keys(modelfiles).map((name) => ({
    name,
    modelfile: modelfiles[name],
    ...results[name],
  }));
  writeFileSync(path, `${JSON.stringify({ versions, cases }, null, 1)}\n`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
