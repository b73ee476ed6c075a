// The ES module entry: the CommonJS build's exports by name.
export * from "./index.js";
