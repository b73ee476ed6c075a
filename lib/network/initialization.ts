/**
 * Initial values, as in the authors' code: convolutions truncated normal with std sqrt(2 / (k * k * out)) (He et al. 2015,
 * fan-out), the classifier uniform within sqrt(3 / in), norms 1 and 0. Each tensor draws from a stream of its own, so the
 * values depend on the seed and the tensor's place alone: same seed, same bits, on every device. They are drawn by
 * native/core/initial_values: on the session's thread for the device, and here only for who asks to see them.
 */
import type { InitialTensor } from "../../binding.js";
import type { ParameterEntry, ParameterLayout } from "./parameters.js";

export interface InitialTensors {
  readonly parameters: InitialTensor[];
  readonly running: InitialTensor[];
}

export function initialTensors(layout: ParameterLayout): InitialTensors {
  const tensors: InitialTensors = { parameters: [], running: [] };
  let stream = 0;
  for (const entry of layout.entries.values()) {
    tensors[entry.buffer].push(...tensorsOf(entry, stream));
    if (entry.initializer.type !== "constant") ++stream;
  }
  return tensors;
}

/** One for each run of elements. What is drawn has a single one. */
function tensorsOf({ initializer, kind, shape, segments }: ParameterEntry, stream: number): InitialTensor[] {
  const distribution = initializer.type;
  const value = distribution === "constant" ? initializer.value : distribution === "uniform" ? initializer.limit : initializer.std;
  return segments.map(({ offset, elements }) => {
    const [out, input, kernel] = shape as [number, number, number];
    const extent = kind === "convolution" ? { out, in: input, taps: kernel ** 2 } : { out: 1, in: elements, taps: 1 };
    return { distribution, value, stream, offset, ...extent };
  });
}
