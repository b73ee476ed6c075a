/**
 * Random malformed calls: every one throws or rejects with an Error that has a code of ours, and none ends the process. Calls
 * that happen to make sense may succeed. REVNET_FUZZ_RUNS sets their number, REVNET_FUZZ_SEED the seed.
 */
import { expect } from "chai";
import fc from "fast-check";
import { type BufferRecord, loadAddon, native, type Op, type Session } from "../../lib/native/index.js";

const runs = Number(process.env.REVNET_FUZZ_RUNS ?? 1000);
const seed = Number(process.env.REVNET_FUZZ_SEED ?? 1);

const detached = () => {
  const array = new Float64Array(4);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
};
const throwing = () => ({
  get op() {
    throw new Error("getter");
  },
  get n() {
    throw null;
  },
});
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

/** Values are made only when they are used: the generator would trip over those that are meant to be tripped over. */
type Lazy<T = unknown> = () => T;
const later = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<Lazy<T>> => arbitrary.map((value) => () => value);

/** What callers pass by mistake, or by malice. */
const junk: fc.Arbitrary<Lazy> = fc.oneof(
  later(
    fc.constantFrom<unknown>(
      undefined,
      null,
      true,
      -1,
      0,
      1,
      2.5,
      1e9,
      2 ** 31,
      2 ** 32,
      2 ** 53,
      1e308,
      NaN,
      Infinity,
      -0,
      "",
      "x",
      "real",
      1n,
      Symbol("s"),
    ),
  ),
  later(fc.integer()),
  later(fc.double()),
  later(fc.string()),
  later(fc.array(fc.integer(), { maxLength: 4 })),
  later(fc.dictionary(fc.string(), fc.integer(), { maxKeys: 4 })),
  fc.constantFrom<Lazy>(
    () => [],
    () => ({}),
    () => Object.create(null),
    () => () => 0,
    () => new Float32Array(4),
    () => new Float64Array(4),
    () => new Int32Array(4),
    () => new Uint8Array(4),
    () => new Uint8ClampedArray(4),
    () => new BigUint64Array(4),
    () => new DataView(new ArrayBuffer(4)),
    () => new Float64Array(new SharedArrayBuffer(32)),
    () => new Array(2 ** 32 - 1),
    () => new Proxy([], {}),
    () =>
      new Proxy(
        {},
        {
          get: () => {
            throw new Error("trap");
          },
        },
      ),
    () =>
      new Proxy(
        {},
        {
          ownKeys: () => {
            throw new Error("trap");
          },
        },
      ),
    detached,
    throwing,
    revoked,
  ),
);

const buffers: BufferRecord[] = [
  { name: "x", type: "real", elements: 36, category: "data" },
  { name: "y", type: "real", elements: 36, category: "activations" },
  { name: "stream", type: "fixed", elements: 36, category: "data" },
  { name: "view", type: "real", elements: 4, category: "data", parent: 0, offset: 3 },
  { name: "labels", type: "index", elements: 4, category: "data" },
  { name: "bytes", type: "byte", elements: 36, category: "data" },
];
const convolution = { n: 1, h: 3, w: 3, c: 2, k: 2, kernel: 1, stride: 1 };
const norm = { statistics: 3, gamma: 6, beta: 6, epsilon: 1e-3 };
const layer = { convolution, weight: 3, ...norm };

/** Ops with every kind of field, some of them sound. */
const ops: Op[] = [
  { op: "copy", elements: 36, x: 0, y: 1 },
  { op: "maximumDifference", elements: 36, a: 0, b: 1, y: 7 },
  { op: "convolutionForward", convolution, x: 0, weight: 3, y: 1 },
  { op: "convolutionBackwardWeights", convolution, x: 0, dy: 1, weightGradient: 3, ...norm },
  { op: "batchNormReluForward", n: 1, h: 3, w: 6, c: 2, x: 0, y: [1], ...norm },
  { op: "shortcutForward", n: 1, h: 3, w: 6, c: 2, k: 2, stride: 1, x: 0, y: 1 },
  { op: "globalAveragePoolForward", n: 1, h: 3, w: 6, c: 2, parts: [{ x: 0, ...norm }], y: 6 },
  { op: "softmaxCrossEntropy", n: 4, classes: 9, x: 0, labels: 4, loss: 7, correct: 8 },
  { op: "residualForward", function: [layer, layer], computeStatistics: true, x: 0, base: 1, y: 1, hidden: [9] },
  {
    op: "reversibleBackward",
    f: [layer],
    g: [layer],
    fGradient: [{ weightGradient: 3 }],
    gGradient: [{ weightGradient: 3 }],
    stream1: 2,
    stream2: 2,
    gradient1: 0,
    gradient2: 1,
    hidden: [],
  },
  { op: "sgdUpdate", elements: 36, decayed: 4, parameters: 0, gradients: 1, momenta: 1, hyperparameters: 9 },
  { op: "adamwUpdate", elements: 36, decayed: 4, parameters: 0, gradients: 1, mean: 1, square: 1, hyperparameters: 9 },
  { op: "clipGradientNorm", elements: 36, maxNorm: 1, gradients: 0, norm: 7 },
];

/** The paths of all fields in a value. */
function paths(value: unknown, path: (string | number)[] = []): (string | number)[][] {
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return [path];
  return [path, ...Object.entries(value).flatMap(([key, field]) => paths(field, [...path, key]))];
}

/** The argument list `value` with what is at one of its paths removed, replaced by junk, or joined by a field that nobody knows. */
function mutated(value: unknown[]): fc.Arbitrary<Lazy<unknown[]>> {
  return fc
    .tuple(fc.constantFrom(...paths(value)), fc.constantFrom("replace", "replace", "remove", "add"), junk)
    .map(([path, how, what]) => () => {
      if (path.length === 0) return how === "replace" ? [what()] : value;
      const copy = structuredClone(value);
      let parent = copy as never as Record<string | number, unknown>;
      for (const key of path.slice(0, -1)) parent = parent[key] as typeof parent;
      if (how === "remove") delete parent[path.at(-1)!];
      else parent[how === "add" ? "unknown" : path.at(-1)!] = what();
      return copy;
    });
}

const program = { locals: [buffers[1]!, { ...buffers[0]!, name: "pinned", pinned: true }], ops };
/** A sound request for gigabytes is not malformed, and not for this test to make. */
function asksForMemory(buffer: unknown): boolean {
  try {
    const { elements } = buffer as BufferRecord;
    return elements > 1e6 && elements < 2 ** 40;
  } catch {
    return false;
  }
}

/** A method and its arguments. */
type Call = readonly [method: string, args: Lazy<unknown[]>];
const calls = (method: string, args: fc.Arbitrary<Lazy<unknown[]>>): fc.Arbitrary<Call> => args.map((make) => [method, make]);
const junkList = fc.array(junk, { maxLength: 3 }).map((list) => () => list.map((make) => make()));
const call = fc.oneof(
  calls(
    "addBuffer",
    fc.constantFrom(...buffers).chain((buffer) => mutated([buffer])),
  ),
  calls("addProgram", mutated([program])),
  calls(
    "addProgram",
    fc.constantFrom(...ops).chain((op) => mutated([{ locals: [], ops: [op] }])),
  ),
  calls("run", mutated([0, [[0, new Float64Array(36)]], [0, 1]])),
  calls("write", mutated([0, new Float64Array(36)])),
  calls("plan", mutated([{ device: "reference", threads: 1 }, buffers, program])),
  calls("plan", mutated([{ device: "cpu", threads: 2, isa: "auto", poison: true }, buffers, program])),
  calls("philox", mutated([7n, 1, 2, "shuffle", 8])),
  calls("construct", mutated([{ device: "reference", threads: 1 }])),
  ...["read", "planned", "elementBytes", "addProgram", "addBuffer", "allocated"].map((method) => calls(method, junkList)),
  ...["run", "read", "addBuffer", "dispose", "allocated"].map((method) => calls(`${method} of what is not a session`, junkList)),
);

describe(`malformed calls (${runs}, seed ${seed})`, function () {
  this.timeout(60_000 + 20 * runs);
  let session: Session;
  let outcomes: Map<string, number>;

  before(() => {
    // The addon itself, without the TypeScript around it.
    session = new (loadAddon().Session)({ device: "reference", threads: 1, poison: true });
    for (const buffer of buffers) session.addBuffer(buffer);
    session.addProgram({ locals: [], ops: [ops[0]!] });
    outcomes = new Map();
  });
  after(() => session.dispose());

  function perform([method, make]: Call): unknown {
    // biome-ignore lint/suspicious/noExplicitAny: malformed on purpose
    const addon = loadAddon() as any;
    const args = make();
    const [name, stranger] = method.split(" ");
    if (stranger) return addon.Session.prototype[name!].apply(args[0], args);
    if (method === "construct") return new addon.Session(...args).dispose();
    if (method === "plan" || method === "philox") return addon[method](...args);
    if (method === "addBuffer" && asksForMemory(args[0])) return undefined;
    return (session as never as Record<string, (...args: unknown[]) => unknown>)[method]!(...args);
  }

  it("throw or reject with a code", async () => {
    await fc.assert(
      fc.asyncProperty(call, async (made) => {
        let code = "fine";
        try {
          await perform(made);
        } catch (error) {
          expect(error).to.be.instanceOf(Error);
          if ((error as Error).message === "Illegal invocation") return; // V8's word for a method of what is not a session
          code = (error as { code: string }).code;
          expect(code, (error as Error).message).to.match(/^ERR_(INVALID_ARGUMENT|OUT_OF_MEMORY|DEVICE_UNAVAILABLE)$/);
          expect((error as Error).message).to.not.equal("");
        }
        outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
      }),
      { numRuns: runs, seed },
    );
    // Most of what was called was refused, and what was not did no harm.
    expect(outcomes.get("ERR_INVALID_ARGUMENT")).to.be.greaterThan(runs / 2);
    const [values] = await session.run(0, [[0, new Float64Array(36).fill(4)]], [1]);
    expect(values!.every((value) => value === 4)).to.equal(true);
    expect(native.devices()).to.not.have.length(0);
  });
});
