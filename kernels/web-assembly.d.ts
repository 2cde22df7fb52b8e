/** What is used of WebAssembly's JavaScript interface; neither `@types/node` nor ES declares it. */
declare namespace WebAssembly {
  /** Structured-cloneable: may be posted to worker threads. */
  class Module {
    private constructor();
    /** Keeps structural typing from taking any object for a module. */
    private readonly brand: never;
  }
  class Memory {
    constructor(descriptor: { initial: number; maximum: number; shared: true });
    readonly buffer: SharedArrayBuffer;
  }
  class Instance {
    constructor(module: Module, imports: Record<string, Record<string, unknown>>);
    readonly exports: Record<string, unknown>;
  }
  function compile(bytes: Uint8Array): Promise<Module>;
  function validate(bytes: Uint8Array): boolean;
}
