import { setImmediate } from "node:timers/promises";
import { expect } from "chai";
import { EventChannel } from "../../lib/training/channel.js";

/** Sends 0, 1, 2 ... to the channel and ends it; `sent` counts along. */
function sender(channel: EventChannel<number>, count: number) {
  const state = { sent: 0, done: Promise.resolve() };
  state.done = (async () => {
    for (let i = 0; i < count; i++) {
      await channel.send(i);
      state.sent = i + 1;
    }
    channel.end();
  })();
  return state;
}

describe("the event channel", () => {
  it("loses nothing on the way to each of several readers", async () => {
    const channel = new EventChannel<number>();
    const read = async () => {
      const values = [];
      for await (const value of channel.iterate()) values.push(value);
      return values;
    };
    const readers = [read(), read()];
    await sender(channel, 1000).done;
    for (const values of await Promise.all(readers)) expect(values).to.deep.equal([...Array(1000).keys()]);
  });

  it("does not wait where nobody reads", async () => {
    const state = sender(new EventChannel<number>(), 100_000);
    await state.done;
    expect(state.sent).to.equal(100_000);
  });

  it("makes the sender wait for a reader that falls behind", async () => {
    const channel = new EventChannel<number>();
    const iterator = channel.iterate();
    const state = sender(channel, 1000);
    for (let i = 0; i < 50; i++) await setImmediate();
    expect(state.sent).to.be.lessThan(100);
    const before = state.sent;
    for (let i = 0; i < 10; i++) expect((await iterator.next()).value).to.equal(i);
    for (let i = 0; i < 50; i++) await setImmediate();
    expect(state.sent).to.equal(before + 10);
    await iterator.return!();
    await state.done;
    expect(state.sent).to.equal(1000);
  });

  it("goes on when a reader leaves its loop", async () => {
    const channel = new EventChannel<number>();
    const loop = (async () => {
      for await (const value of channel.iterate()) if (value === 5) break;
    })();
    const state = sender(channel, 1000);
    await loop;
    await state.done;
    expect(state.sent).to.equal(1000);
  });

  it("throws a failure to each reader, once it has read the rest", async () => {
    const channel = new EventChannel<number>();
    const iterator = channel.iterate();
    await channel.send(1);
    channel.end({ error: new Error("broken") });
    expect(await iterator.next()).to.deep.equal({ done: false, value: 1 });
    const caught = await iterator.next().catch((error: Error) => error.message);
    expect(caught).to.equal("broken");
    expect((await iterator.next()).done).to.equal(true);
  });
});
