/** Everything that touches the optional packages of OpenTelemetry. Loaded by tracing.ts only. */
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { detectResourcesSync, envDetectorSync, Resource } from '@opentelemetry/resources';
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  type ReadableSpan,
  type Span,
  type SpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import {
  makeWorkflowExporter,
  OpenTelemetryActivityInboundInterceptor,
  OpenTelemetryActivityOutboundInterceptor,
  OpenTelemetryWorkflowClientInterceptor,
} from '@temporalio/interceptors-opentelemetry';
import { releaseOf } from './release-logs.ts';
import { stageOf } from './stage-of.ts';

/** A command that follows a release asks it every second: that is no part of what a release does. */
const QUESTIONS = /^(Query|HandleQuery|Describe)/;

interface ProviderOptions {
  /** URL that takes OTLP over HTTP, as JSON. Headers and the rest come from `OTEL_EXPORTER_OTLP_*`. */
  readonly url: string;
  readonly host: string;
  readonly note: (line: string) => void;
}

/** The tracer of the process: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say who it is. */
export function createProvider({ url, host, note }: ProviderOptions) {
  const named = new Resource({ 'service.name': 'weldline', 'host.name': host });
  const resource = named.merge(detectResourcesSync({ detectors: [envDetectorSync] }));
  const exporter = new OTLPTraceExporter({ url });
  noteFailures(exporter, note);
  const processor = new ReleaseSpans(new BatchSpanProcessor(exporter), exporter);
  const provider = new BasicTracerProvider({ resource, spanProcessors: [processor] });
  provider.register({ contextManager: new AsyncLocalStorageContextManager().enable() });
  return { provider, processor, resource };
}

/** What clients and workers are created with. */
export function interceptors(processor: SpanProcessor, resource: Resource) {
  const { fn: toSpans } = makeWorkflowExporter(processor, resource).export;
  return {
    client: new OpenTelemetryWorkflowClientInterceptor(),
    worker: {
      interceptors: {
        activity: [
          (context: ConstructorParameters<typeof OpenTelemetryActivityInboundInterceptor>[0]) => ({
            inbound: new OpenTelemetryActivityInboundInterceptor(context),
            outbound: new OpenTelemetryActivityOutboundInterceptor(context),
          }),
        ],
      },
      sinks: {
        exporter: {
          export: {
            // All that Temporal knows of a run would become attributes: memo, search attributes, …
            fn: ({ workflowId, runId }: RunNames, spans: SerializedSpans) =>
              toSpans({ temporalWorkflowId: workflowId, run_id: runId } as never, spans),
          },
        },
      },
    },
  };
}

interface RunNames {
  readonly workflowId: string;
  readonly runId: string;
}
type SerializedSpans = Parameters<ReturnType<typeof makeWorkflowExporter>['export']['fn']>[1];

/** Says of each span which release and stage it belongs to. */
class ReleaseSpans implements SpanProcessor {
  readonly #next: SpanProcessor;
  readonly #exporter: OTLPTraceExporter;

  constructor(next: SpanProcessor, exporter: OTLPTraceExporter) {
    this.#next = next;
    this.#exporter = exporter;
  }

  onStart(span: Span, context: Parameters<SpanProcessor['onStart']>[1]): void {
    this.#next.onStart(span, context);
  }

  onEnd(span: ReadableSpan): void {
    if (QUESTIONS.test(span.name)) return;
    const { temporalWorkflowId } = span.attributes;
    const activity = /^(?:Run|Start)Activity:(.+)$/.exec(span.name)?.[1];
    Object.assign(span.attributes, {
      ...(typeof temporalWorkflowId === 'string' && { release: releaseOf(temporalWorkflowId) }),
      ...(activity !== undefined && { stage: stageOf(activity) }),
    });
    this.#next.onEnd(span);
  }

  /** The batches that wait, and then those that were being sent when it was called. */
  async forceFlush(): Promise<void> {
    await this.#next.forceFlush();
    await this.#exporter.forceFlush();
  }

  shutdown(): Promise<void> {
    return this.#next.shutdown();
  }
}

/** Traces that do not arrive are told once, until some do again. */
function noteFailures(exporter: OTLPTraceExporter, note: (line: string) => void): void {
  const send = exporter.export.bind(exporter);
  let isFailing = false;
  exporter.export = (spans, done) => {
    send(spans, (result) => {
      const { error } = result;
      if (error !== undefined && !isFailing) {
        note(`Traces do not arrive at OTEL_EXPORTER_OTLP_ENDPOINT: ${error.message}`);
      }
      isFailing = error !== undefined;
      done(result);
    });
  };
}
