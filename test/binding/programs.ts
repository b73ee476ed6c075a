/** Small programs for the tests of the binding: what they compute matters less than how long they take. */
import type { BufferRecord, DeviceOptions, native as Native, Session } from "../../lib/native/index.js";

type NativeModule = typeof Native;

export const reference: DeviceOptions = { device: "reference", threads: 1 };

const real = (name: string, elements: number, rest: Partial<BufferRecord> = {}): BufferRecord => ({
  name,
  type: "real",
  elements,
  category: "data",
  ...rest,
});

export interface CopySession {
  session: Session;
  program: number;
  x: number;
  y: number;
  elements: number;
}

/** y = x. */
export function copySession(native: NativeModule, elements = 16, options: DeviceOptions = reference): CopySession {
  const session = new native.Session(options);
  const x = session.addBuffer(real("x", elements));
  const y = session.addBuffer(real("y", elements));
  const program = session.addProgram({ locals: [], ops: [{ op: "copy", elements, x, y }] });
  return { session, program, x, y, elements };
}

export interface SlowSession {
  session: Session;
  /** Starts the program: `layers` convolutions, about 20 ms each on the reference. */
  run(): Promise<unknown>;
}

export function slowSession(native: NativeModule, layers = 20, options: DeviceOptions = reference): SlowSession {
  const session = new native.Session(options);
  const convolution = { n: 1, h: 16, w: 16, c: 64, k: 64, kernel: 3, stride: 1 };
  const weight = session.addBuffer(real("weight", 9 * 64 * 64, { category: "parameters" }));
  const x = session.addBuffer(real("x", 16 * 16 * 64));
  const y = session.addBuffer(real("y", 16 * 16 * 64));
  const program = session.addProgram({
    locals: [],
    ops: Array.from({ length: layers }, () => ({ op: "convolutionForward" as const, convolution, x, weight, y })),
  });
  return { session, run: () => session.run(program, [], [y]) };
}

/** One turn of the event loop. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
export const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
