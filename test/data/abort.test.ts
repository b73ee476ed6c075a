/** Waiting that a signal ends: at once, with its reason, and without leaving anything behind. */
import { getEventListeners } from "node:events";
import { setTimeout } from "node:timers/promises";
import { expect } from "chai";
import { abortable, unlessAborted } from "../../lib/data/abort.js";
import { RevNetError } from "../../lib/errors.js";

const never = <T>() => new Promise<T>(() => {});

async function failure(promise: Promise<unknown>): Promise<RevNetError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).to.be.instanceOf(RevNetError);
  return error as RevNetError;
}

describe("waiting", () => {
  it("gives what is awaited, or what it throws, and no longer listens", async () => {
    const { signal } = new AbortController();
    expect(await unlessAborted(Promise.resolve(3), undefined, "no")).to.equal(3);
    expect(await unlessAborted(Promise.resolve(3), signal, "no")).to.equal(3);
    const wrong = new Error("wrong");
    expect(await unlessAborted(Promise.reject(wrong), signal, "no").catch((error: unknown) => error)).to.equal(wrong);
    expect(getEventListeners(signal, "abort")).to.have.length(0);
  });

  it("ends with the signal, and what is awaited may still fail", async () => {
    const aborted = AbortSignal.abort("enough");
    const error = await failure(unlessAborted(never(), aborted, "it was aborted"));
    expect(error).to.include({ code: "ERR_ABORTED", message: "it was aborted", cause: "enough" });

    const controller = new AbortController();
    let fail = (_: Error) => {};
    const late = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const waiting = failure(unlessAborted(late, controller.signal, "aborted later"));
    controller.abort("later");
    expect(await waiting).to.include({ code: "ERR_ABORTED", message: "aborted later", cause: "later" });
    expect(getEventListeners(controller.signal, "abort")).to.have.length(0);
    // Nobody waits for it any more: an unhandled rejection would end the process.
    fail(new Error("too late"));
    await setTimeout(1);
  });
});

describe("an iterable that can be left", () => {
  /** Counts from 1 to 3, then `last`; and tells how it ended. */
  function counting(last: () => Promise<IteratorResult<number>>, leave = async () => {}) {
    const seen = { asked: 0, left: 0, leaving: 0 };
    const iterator: AsyncIterator<number> = {
      next: async () => {
        seen.asked += 1;
        return seen.asked <= 3 ? { value: seen.asked, done: false } : last();
      },
      return: async () => {
        seen.leaving += 1;
        await leave();
        seen.left += 1;
        return { value: undefined, done: true };
      },
    };
    return { seen, iterable: { [Symbol.asyncIterator]: () => iterator } };
  }
  const end = async () => ({ value: undefined, done: true }) as const;

  it("gives its items in order, to its end", async () => {
    const { iterable } = counting(end);
    const items: number[] = [];
    for await (const item of abortable(iterable, undefined, "no")) items.push(item);
    expect(items).to.deep.equal([1, 2, 3]);
  });

  it("is told where the loop over it ends early, and waited for", async () => {
    const { seen, iterable } = counting(end, () => setTimeout(5).then(() => {}));
    for await (const item of abortable(iterable, new AbortController().signal, "no")) if (item === 2) break;
    expect(seen).to.deep.equal({ asked: 2, leaving: 1, left: 1 });
  });

  it("is not waited for where it hangs, nor as it is left", async () => {
    const controller = new AbortController();
    const { seen, iterable } = counting(never, () => Promise.reject(new Error("it cannot be left")));
    const items: number[] = [];
    const loop = (async () => {
      for await (const item of abortable(iterable, controller.signal, "it hung")) items.push(item);
    })();
    await setTimeout(1);
    controller.abort();
    expect(await failure(loop)).to.include({ code: "ERR_ABORTED", message: "it hung" });
    expect(items).to.deep.equal([1, 2, 3]);
    expect(seen).to.include({ leaving: 1, left: 0 });

    const stuck = counting(never, never);
    const other = new AbortController();
    const waiting = (async () => {
      for await (const _ of abortable(stuck.iterable, other.signal, "it is stuck"));
    })();
    await setTimeout(1);
    other.abort();
    expect(await failure(waiting)).to.include({ message: "it is stuck" });
  });

  it("passes on what it throws, and what leaving it throws", async () => {
    const wrong = counting(() => Promise.reject(new Error("no more")));
    const all = async (iterable: AsyncIterable<number>, until: number) => {
      for await (const item of abortable(iterable, new AbortController().signal, "no")) if (item === until) break;
    };
    expect(await all(wrong.iterable, 9).catch((error: Error) => error.message)).to.equal("no more");
    const leaving = counting(end, () => Promise.reject(new Error("it cannot be left")));
    expect(await all(leaving.iterable, 2).catch((error: Error) => error.message)).to.equal("it cannot be left");
  });
});
