/**
 * What the published types name and a project may lack: `lib` before ES2022, TypeScript before 5.2 or without "esnext.disposable", no
 * @types/node. Where they are there, these declarations merge with them and add nothing.
 */
declare global {
  // Its members come from @types/node or from the DOM.
  interface AbortSignal {}
  interface ErrorOptions {
    cause?: unknown;
  }
  interface SymbolConstructor {
    readonly dispose: unique symbol;
  }
}

export {};
