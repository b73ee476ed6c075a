/** The session as JavaScript sees it: order of work, copies, errors and their stacks, dispose. */
import { expect } from "chai";
import { RevNetError } from "../../lib/errors.js";
import { loadAddon, native, type Values } from "../../lib/native/index.js";
import { thrown } from "../support/errors.js";
import { copySession, reference, slowSession, turn } from "./programs.js";

async function rejection(promise: Promise<unknown>): Promise<RevNetError> {
  try {
    await promise;
  } catch (error) {
    expect(error).to.be.instanceOf(RevNetError);
    return error as RevNetError;
  }
  throw new Error("expected a rejection");
}

describe("session", () => {
  it("runs, reads and writes in the order of the calls, without awaiting", async () => {
    const { session, program, x, y, elements } = copySession(native);
    const results: Promise<Values>[] = [];
    for (let i = 0; i < 50; ++i) {
      void session.write(x, new Float64Array(elements).fill(i));
      void session.run(program, [], []);
      results.push(session.read(y));
    }
    expect((await Promise.all(results)).map((values) => values[0])).to.deep.equal(Array.from({ length: 50 }, (_, i) => i));
    session.dispose();
  });

  it("copies its inputs at the call", async () => {
    const { session, program, x, y, elements } = copySession(native);
    const input = new Float32Array(elements).fill(1);
    const first = session.run(program, [[x, input]], [y]);
    input.fill(2);
    structuredClone(input.buffer, { transfer: [input.buffer] });
    expect(Array.from((await first)[0]!)).to.deep.equal(Array(elements).fill(1));
    session.dispose();
  });

  it("reads and writes parts of a buffer", async () => {
    const { session, program, x, y, elements } = copySession(native);
    await session.write(
      x,
      Float64Array.from({ length: elements }, (_, i) => i),
    );
    await session.write(x, Float64Array.of(-1, -2, -3), 4);
    await session.run(program, [], []);
    expect(Array.from(await session.read(y, 3, 5))).to.deep.equal([3, -1, -2, -3, 7]);
    expect(Array.from(await session.read(y, elements - 2))).to.deep.equal([elements - 2, elements - 1]);
    for (const [first, count] of [
      [elements - 1, 2],
      [elements + 1, 0],
      [0, elements + 1],
      [2 ** 53 - 1, 1],
      [1, 2 ** 53 - 1],
    ] as const) {
      expect((await rejection(session.read(y, first, count))).message).to.match(/buffer 'y': expected a part of its 16 values/);
      if (count < 100)
        expect((await rejection(session.write(y, new Float64Array(count), first))).message).to.match(/expected a part of its/);
    }
    for (const wrong of [-1, 0.5, Number.NaN, "1", null]) await rejection(session.read(y, wrong as number));
    session.dispose();
  });

  it("takes memory shared with other threads", async () => {
    const { session, program, x, y, elements } = copySession(native);
    const shared = new Float64Array(new SharedArrayBuffer(8 * (elements + 1)), 8).fill(3);
    expect(Array.from((await session.run(program, [[x, shared]], [y]))[0]!)).to.deep.equal(Array(elements).fill(3));
    session.dispose();
  });

  it("works in several sessions at once, each on its own thread", async () => {
    const sessions = Array.from({ length: 8 }, () => copySession(native, 1000));
    const results = sessions.flatMap(({ session, program, x, y, elements }, s) =>
      Array.from({ length: 25 }, async (_, i) => {
        const [values] = await session.run(program, [[x, new Float64Array(elements).fill(100 * s + i)]], [y]);
        expect(values!.every((value) => value === 100 * s + i)).to.equal(true);
      }),
    );
    await Promise.all(results);
    for (const { session } of sessions) session.dispose();
  });

  it("leaves the event loop free while a step runs", async () => {
    const { session, run } = slowSession(native, 10);
    let done = false;
    const step = run().finally(() => {
      done = true;
    });
    let turns = 0;
    while (!done) {
      await turn();
      ++turns;
    }
    await step;
    expect(turns).to.be.greaterThan(5);
    session.dispose();
  });

  it("reports memory during a step without waiting for it", async () => {
    const { session, run } = slowSession(native, 50);
    let done = false;
    const step = run().finally(() => {
      done = true;
    });
    // The step has begun once its memory is there.
    while (session.allocated().total < session.planned(0).total) await turn();
    expect(session.allocated().data).to.equal(2 * 8 * 16 * 16 * 64);
    expect(session.planned(0)).to.deep.equal(session.allocated());
    expect(done).to.equal(false);
    session.dispose();
    await rejection(step);
  });

  it("lets a program be added while a step runs", async () => {
    const { session, program, x, y, elements } = copySession(native);
    const running = Promise.all(Array.from({ length: 20 }, () => session.run(program, [[x, new Float64Array(elements)]], [y])));
    const more = Array.from({ length: 20 }, () => session.addProgram({ locals: [], ops: [{ op: "copy", elements, x: y, y: x }] }));
    expect(more).to.deep.equal(Array.from({ length: 20 }, (_, i) => i + 1));
    await running;
    session.dispose();
  });
});

describe("session errors", () => {
  it("have a code, a cause and the stack of the caller", async () => {
    const { session, program, x } = copySession(native);
    async function callerOfRun() {
      await session.run(program, [[x, new Float64Array(3)]], []);
    }
    const error = await rejection(callerOfRun());
    expect(error.code).to.equal("ERR_INVALID_ARGUMENT");
    expect(error.message).to.equal("buffer 'x': expected 16 values, got 3");
    expect(error.stack).to.match(/callerOfRun/);
    expect(error.cause).to.be.instanceOf(Error);
    session.dispose();
  });

  it("leave the session usable", async () => {
    const { session, program, x, y, elements } = copySession(native);
    await rejection(session.run(program + 1, [], []));
    await rejection(session.run(program, [[99, new Float64Array(1)]], []));
    await rejection(session.write(x, new Uint8Array(elements)));
    await rejection(session.read(99));
    thrown(() => session.addBuffer({ name: "b", type: "real", elements: 0, category: "data" }));
    thrown(() => session.addProgram({ locals: [], ops: [{ op: "copy", elements: 1, x, y }] }));
    const [values] = await session.run(program, [[x, new Float64Array(elements).fill(5)]], [y]);
    expect(values![0]).to.equal(5);
    session.dispose();
  });

  it("name the field", () => {
    const { session, x, y, elements } = copySession(native);
    const add = (op: unknown) => thrown(() => session.addProgram({ locals: [], ops: [op as never] })).message;
    const copy = { op: "copy", elements, x, y };
    expect(add({ ...copy, z: 1 })).to.match(/^ops\[0\]\.z: unknown field; expected op, elements, x, y/);
    expect(add({ ...copy, x: undefined })).to.match(/^ops\[0\]\.x: missing/);
    expect(add({ ...copy, x: 1.5 })).to.match(/^ops\[0\]\.x: expected an integer .* got 1\.5/);
    expect(add({ ...copy, x: 7 })).to.match(/op 0 \(copy\): x: there is no buffer 7/);
    expect(add({ ...copy, op: "kopy" })).to.match(/^ops\[0\]\.op: expected the name of an op, got 'kopy'/);
    const layer = { convolution: { n: 1, h: 1, w: 1, c: 1, k: 1, kernel: 2, stride: 1 }, weight: x };
    const residual = { op: "residualForward", computeStatistics: false, x, base: x, y, hidden: [] };
    expect(add({ ...residual, function: [layer] })).to.match(
      /^ops\[0\]\.function\[0\]\.convolution\.kernel: expected an odd number/,
    );
    session.dispose();
  });

  it("refuse arguments whose getters, proxies or buffers misbehave", async () => {
    const { session, program, x, y, elements } = copySession(native);
    const broken = {
      get op() {
        throw new Error("no op today");
      },
    };
    expect(thrown(() => session.addProgram({ locals: [], ops: [broken as never] })).message).to.match(
      /ops\[0\]\.op: cannot be read: no op today/,
    );
    const unlistable = new Proxy(
      { op: "copy", elements, x, y },
      {
        ownKeys: () => {
          throw new Error("unlistable");
        },
      },
    );
    expect(thrown(() => session.addProgram({ locals: [], ops: [unlistable as never] })).message).to.match(
      /cannot be listed: unlistable/,
    );
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    thrown(() => session.addProgram(proxy as never));
    thrown(() => session.addProgram({ locals: [], ops: { length: 2 ** 32 } as never }));
    const sparse: never[] = [];
    sparse.length = 2 ** 32 - 1;
    expect(thrown(() => session.addProgram({ locals: [], ops: sparse })).message).to.match(/at most 65536 entries/);
    const detached = new Float64Array(elements);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect((await rejection(session.run(program, [[x, detached]], []))).message).to.match(/expected 16 values, got 0/);
    await rejection(session.run(program, [[x, new BigInt64Array(elements) as never]], []));
    await rejection(session.run(program, [[x, new DataView(new ArrayBuffer(8)) as never]], []));
    await rejection(session.run(program, [[x, new Proxy(new Float64Array(elements), {})]], []));
    session.dispose();
  });

  it("survive a getter that disposes the session", async () => {
    const { session, x, y, elements } = copySession(native);
    const op = {
      op: "copy" as const,
      elements,
      y,
      get x() {
        session.dispose();
        return x;
      },
    };
    expect(thrown(() => session.addProgram({ locals: [], ops: [op] })).code).to.equal("ERR_DISPOSED");
  });

  it("refuse what is not a session", () => {
    thrown(() => new native.Session({ device: "quantum", threads: 1 }));
    thrown(() => new native.Session({ device: "cpu", threads: 0 }));
    thrown(() => new native.Session({ ...reference, thread: 1 } as never));
    thrown(() => new native.Session(undefined as never));
    for (const method of ["run", "addBuffer", "dispose"] as const)
      expect(() => (loadAddon().Session.prototype[method] as () => void).call({})).to.throw(TypeError, "Illegal invocation");
  });

  it("say that a device is unavailable", () => {
    const cuda = native.devices().find((device) => device.name.startsWith("cuda"))!;
    const error = thrown(() => new native.Session({ device: "cuda:63", threads: 1 }));
    expect(error.code).to.equal("ERR_DEVICE_UNAVAILABLE");
    if (!cuda.available) expect(error.message).to.equal(cuda.description);
  });
});

describe("dispose", () => {
  it("stops a running step and rejects what waits", async () => {
    for (let i = 0; i < 30; ++i) {
      // Minutes of work, longer than this test may take. How long disposing takes, bench/event-loop.mjs says.
      const { session, run } = slowSession(native, 5000);
      const steps = [run(), run(), run()].map(rejection);
      for (let turns = 0; turns < i; ++turns) await turn();
      session.dispose();
      expect((await Promise.all(steps)).map((error) => error.code)).to.deep.equal(Array(3).fill("ERR_DISPOSED"));
    }
  });

  it("is final and idempotent", async () => {
    const { session, program, x } = copySession(native);
    session.dispose();
    session.dispose();
    expect((await rejection(session.run(program, [], []))).code).to.equal("ERR_DISPOSED");
    expect((await rejection(session.read(x))).code).to.equal("ERR_DISPOSED");
    expect((await rejection(session.write(x, new Float64Array(16)))).code).to.equal("ERR_DISPOSED");
    expect(thrown(() => session.allocated()).code).to.equal("ERR_DISPOSED");
    expect(thrown(() => session.planned(0)).code).to.equal("ERR_DISPOSED");
    expect(thrown(() => session.addBuffer({ name: "b", type: "real", elements: 1, category: "data" })).code).to.equal(
      "ERR_DISPOSED",
    );
    expect(session.description).to.match(/reference/);
  });
});

describe("operands that share memory", () => {
  const session = new native.Session(reference);
  after(() => session.dispose());
  const buffer = (name: string, rest: object = {}) =>
    session.addBuffer({ name, type: "real", elements: 8, category: "data", ...rest });
  const whole = buffer("whole", { elements: 12 });
  const low = buffer("low", { parent: whole, offset: 0 });
  const high = buffer("high", { parent: whole, offset: 4 });
  const [a, b] = [buffer("a"), buffer("b")];
  const add = (...ops: Parameters<typeof session.addProgram>[0]["ops"]) => session.addProgram({ locals: [], ops });

  it("are refused where one is written", () => {
    expect(thrown(() => add({ op: "copy", elements: 8, x: low, y: high })).message).to.match(/'low' and 'high' share memory/);
    expect(thrown(() => add({ op: "copy", elements: 8, x: a, y: a })).code).to.equal("ERR_INVALID_ARGUMENT");
    const sgd = { op: "sgdUpdate", elements: 8, decayed: 0, hyperparameters: buffer("h", { elements: 4 }) } as const;
    expect(thrown(() => add({ ...sgd, parameters: a, gradients: b, momenta: a })).code).to.equal("ERR_INVALID_ARGUMENT");
  });

  it("are taken where both are read, or the contract allows it", () => {
    const y = buffer("y", { elements: 1 });
    add({ op: "maximumDifference", elements: 8, a: low, b: high, y });
    const convolution = { n: 1, h: 2, w: 4, c: 1, k: 1, kernel: 1, stride: 1 };
    const weight = buffer("w", { elements: 1 });
    const layers = { function: [{ convolution, weight }], x: a, hidden: [], computeStatistics: true };
    add({ op: "residualForward", ...layers, base: b, y: b });
  });

  it("strides beyond the kernels' tables are refused", () => {
    const convolution = { n: 1, h: 6, w: 6, c: 1, k: 1, kernel: 3, stride: 3 };
    const weight = buffer("w3", { elements: 9 });
    const [x, y] = [buffer("x3", { elements: 36 }), buffer("y3", { elements: 4 })];
    expect(thrown(() => add({ op: "convolutionForward", convolution, x, weight, y })).message).to.match(/stride/);
  });
});

describe("plan, philox, buildInfo", () => {
  it("plan reports what a session counts", async () => {
    const real = (name: string, rest: object = {}) => ({
      name,
      type: "real" as const,
      elements: 1000,
      category: "activations" as const,
      ...rest,
    });
    const buffers = [real("x", { category: "data" }), real("y", { category: "parameters" })];
    // a and c are never alive together, so two of the three fit the arena.
    const program = {
      locals: [real("a"), real("b"), real("c")],
      ops: [
        [0, 2],
        [2, 3],
        [3, 4],
        [4, 1],
      ].map(([x, y]) => ({ op: "copy" as const, elements: 1000, x: x!, y: y! })),
    };
    const planned = native.plan(reference, buffers, program);
    expect(planned.activations).to.equal(2 * 8000);
    expect(planned.live).to.equal(2 * 8000);
    const session = new native.Session(reference);
    for (const buffer of buffers) session.addBuffer(buffer);
    const number = session.addProgram(program);
    const { live, ...report } = planned;
    expect(live).to.equal(planned.activations);
    expect(session.planned(number)).to.deep.equal(report);
    expect(session.allocated().activations).to.equal(0);
    await session.run(number, [], []);
    expect(session.allocated()).to.deep.equal(report);
    session.dispose();
  });

  it("philox depends on every word of its key, and refuses others", () => {
    const draw = (seed: bigint, low: number, high: number, purpose: "shuffle" | "dataset") =>
      Array.from(native.philox(seed, low, high, purpose, 8));
    const first = draw(1n, 2, 3, "shuffle");
    expect(draw(1n, 2, 3, "shuffle")).to.deep.equal(first);
    for (const other of [
      draw(2n, 2, 3, "shuffle"),
      draw(1n + (1n << 32n), 2, 3, "shuffle"),
      draw(1n, 1, 3, "shuffle"),
      draw(1n, 2, 4, "shuffle"),
      draw(1n, 2, 3, "dataset"),
    ])
      expect(other).to.not.deep.equal(first);
    expect(native.philox(0n, 0, 0, "shuffle", 0)).to.have.length(0);
    thrown(() => native.philox(-1n, 0, 0, "shuffle", 1));
    thrown(() => native.philox(1n << 64n, 0, 0, "shuffle", 1));
    thrown(() => native.philox(1 as never, 0, 0, "shuffle", 1));
    thrown(() => native.philox(0n, 2 ** 32, 0, "shuffle", 1));
    thrown(() => native.philox(0n, 0, 0, "lottery" as never, 1));
    thrown(() => native.philox(0n, 0, 0, "shuffle", 2 ** 40));
  });

  it("buildInfo says what was built", () => {
    const info = native.buildInfo();
    expect(info.version).to.match(/^\d+\.\d+\.\d+$/);
    expect(info.napiVersion).to.equal(8);
    expect(info.isas).to.include(process.arch === "arm64" ? "neon" : "portable");
  });
});
