/** Waiting that an AbortSignal ends at once, whatever is waited for. */
import { RevNetError } from "../errors.js";

/**
 * What is awaited, or ERR_ABORTED as soon as the signal says so; what was awaited then goes on unheeded.
 * @param what the message, such as "the evaluation was aborted"
 */
export async function unlessAborted<T>(promise: PromiseLike<T>, signal: AbortSignal | undefined, what: string): Promise<T> {
  if (!signal) return promise;
  let listener = () => {};
  const aborted = new Promise<never>((_, reject) => {
    listener = () => reject(new RevNetError("ERR_ABORTED", what, { cause: signal.reason }));
    if (signal.aborted) listener();
    else signal.addEventListener("abort", listener, { once: true });
  });
  promise.then(undefined, () => {});
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", listener);
  }
}

/** The same for each item of an iterable, which is left then without waiting for it. */
export async function* abortable<T>(iterable: AsyncIterable<T>, signal: AbortSignal | undefined, what: string): AsyncGenerator<T> {
  const items = iterable[Symbol.asyncIterator]();
  let waiting = false;
  try {
    for (;;) {
      waiting = true;
      const item = await unlessAborted(items.next(), signal, what);
      waiting = false;
      if (item.done) return;
      yield item.value;
    }
  } finally {
    const left = Promise.resolve(items.return?.());
    // One that hangs in its last item would not return before it.
    if (waiting) left.catch(() => {});
    else await left;
  }
}
