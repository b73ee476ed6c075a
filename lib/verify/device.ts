/** Runs the steps of problems on a device: names become buffer ids, outputs come back by name as float64 whatever the device computes in. */
import { types } from "node:util";
import type { BufferRecord, DeviceOptions, Op, Session, Values } from "../../binding.js";
import { native } from "../native/index.js";
import type { Step, Tensor } from "./problem.js";

export type Named = Map<string, Values>;

/** The names of the tensors that a record mentions: all its strings but the op's own name. */
export function tensorsOf(record: unknown): string[] {
  if (typeof record === "string") return [record];
  if (Array.isArray(record)) return record.flatMap(tensorsOf);
  if (record === null || typeof record !== "object") return [];
  return Object.entries(record).flatMap(([key, value]) => (key === "op" ? [] : tensorsOf(value)));
}

function resolve(record: unknown, ids: Map<string, number>): unknown {
  if (typeof record === "string") return ids.get(record);
  if (Array.isArray(record)) return record.map((entry) => resolve(entry, ids));
  if (record === null || typeof record !== "object") return record;
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, key === "op" ? value : resolve(value, ids)]));
}

export interface Program {
  /** Every tensor that the steps mention. */
  readonly names: string[];
  /** Writes those tensors that `values` has, runs the steps, reads `outputs` (by default all). All others start as NaN. */
  run(values: Named, outputs?: string[]): Promise<Named>;
}

export class Device {
  readonly session: Session;

  constructor(options: Omit<DeviceOptions, "threads"> & { threads?: number }) {
    this.session = new native.Session({ threads: 1, poison: true, ...options });
  }

  program(tensors: Map<string, Tensor>, steps: Step[]): Program {
    const names = [...new Set(steps.flatMap(tensorsOf))];
    const ids = new Map<string, number>();
    const locals: BufferRecord[] = [];
    for (const name of names) {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`no tensor '${name}'`);
      const { type, elements, shifted } = tensor;
      const common = { type, category: "activations", pinned: true } as const;
      if (shifted) locals.push({ name: `${name}, one longer`, elements: elements + 1, ...common });
      const view = shifted ? { parent: locals.length - 1, offset: 1 } : {};
      ids.set(name, locals.push({ name, elements, ...common, ...view }) - 1);
    }
    const id = (name: string) => ids.get(name) as number;
    const program = this.session.addProgram({ locals, ops: steps.map((step) => resolve(step, ids) as Op) });
    return {
      names,
      run: async (values, outputs = names) => {
        const inputs = names.flatMap((name): [number, Values][] => {
          const value = values.get(name);
          return value ? [[id(name), value]] : [];
        });
        const results = await this.session.run(program, inputs, outputs.map(id));
        return new Map(outputs.map((name, i) => [name, toFloat64(results[i] as Values)]));
      },
    };
  }

  run(tensors: Map<string, Tensor>, steps: Step[], values: Named): Promise<Named> {
    return this.program(tensors, steps).run(values);
  }

  dispose(): void {
    this.session.dispose();
  }
}

const toFloat64 = (values: Values): Values => (types.isFloat32Array(values) ? Float64Array.from(values) : values);

/** The initial values of a problem's tensors. */
export function initialValues(tensors: Map<string, Tensor>): Named {
  return new Map([...tensors].flatMap(([name, { values }]): [string, Values][] => (values ? [[name, values]] : [])));
}
