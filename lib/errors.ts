import { printable } from "./text.js";

/**
 * The one error class of the package. `code` is stable and documented in docs/errors.md; `message` says what was wrong and
 * what was expected, in one line. Names in it that came from outside (files, classes, URLs) are safe to print: control characters are
 * escaped, passwords in URLs are masked.
 */
export class RevNetError extends Error {
  /** Such as ERR_INVALID_ARGUMENT; the same in later versions. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(printable(message), options);
    this.name = "RevNetError";
    this.code = code;
  }
}
