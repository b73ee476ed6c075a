/**
 * ONNX models: a graph of operators over named tensors, written as the Protocol Buffers messages of onnx.proto. The numbers
 * are the fields' in that schema; only the fields that a network needs are here.
 */
import { types } from "node:util";
import { RevNetError } from "../errors.js";
import { writeFileAtomically } from "../files/atomic.js";
import { Message } from "./protobuf.js";

/** The operators' version, and the oldest version of the file format that knows it. */
const OPSET = 17;
const IR_VERSION = 8;
/** A Protocol Buffers message cannot be longer. */
const MAX_BYTES = 2 ** 31 - 1;

const TENSOR_FLOAT = 1;
const TENSOR_INT64 = 7;
const ATTRIBUTE_FLOAT = 1;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_INTS = 7;

/** A number is an integer. */
export type Attribute = number | readonly number[] | { readonly float: number };

export interface Node {
  readonly name: string;
  readonly inputs: readonly string[];
  /** Default: one, called as the node. */
  readonly outputs?: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** Nodes must be added after those whose outputs they read. */
export class OnnxGraph {
  readonly #nodes: Message[] = [];
  readonly #constants: Message[] = [];
  readonly #inputs: Message[] = [];
  readonly #outputs: Message[] = [];

  constructor(readonly name: string) {}

  /** @returns the name of its first output */
  node(operator: string, { name, inputs, outputs = [name], attributes = {} }: Node): string {
    const node = new Message();
    for (const input of inputs) node.string(1, input);
    for (const output of outputs) node.string(2, output);
    node.string(3, name).string(4, operator);
    for (const [key, value] of Object.entries(attributes)) node.message(5, attribute(key, value));
    this.#nodes.push(node);
    return outputs[0]!;
  }

  /** A tensor that the file holds; `data` must not change before it is written. @returns its name */
  constant(name: string, shape: readonly number[], data: Float32Array | BigInt64Array): string {
    const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const type = types.isFloat32Array(data) ? TENSOR_FLOAT : TENSOR_INT64;
    this.#constants.push(new Message().integers(1, shape).integer(2, type).string(8, name).bytes(9, raw));
    return name;
  }

  /** Real numbers; a dimension with a name instead of a size is chosen by whoever runs the model. @returns its name */
  input(name: string, shape: readonly (number | string)[]): string {
    this.#inputs.push(value(name, shape));
    return name;
  }

  output(name: string, shape: readonly (number | string)[]): void {
    this.#outputs.push(value(name, shape));
  }

  message(): Message {
    const graph = new Message();
    for (const node of this.#nodes) graph.message(1, node);
    graph.string(2, this.name);
    for (const constant of this.#constants) graph.message(5, constant);
    for (const input of this.#inputs) graph.message(11, input);
    for (const output of this.#outputs) graph.message(12, output);
    return graph;
  }
}

/** Writes a model atomically. @throws RevNetError ERR_FILE */
export async function writeOnnx(file: string, graph: OnnxGraph, metadata: Readonly<Record<string, string>> = {}): Promise<void> {
  const model = new Message().integer(1, IR_VERSION).string(2, "revnet").message(7, graph.message());
  model.message(8, new Message().string(1, "").integer(2, OPSET));
  for (const [key, text] of Object.entries(metadata)) model.message(14, new Message().string(1, key).string(2, text));
  if (model.length > MAX_BYTES)
    throw new RevNetError(
      "ERR_FILE",
      `cannot write '${file}': ${graph.name} takes ${model.length} bytes, but an ONNX file holds at most ${MAX_BYTES}`,
    );
  await writeFileAtomically(file, model.pieces());
}

function attribute(name: string, value: Attribute): Message {
  const message = new Message().string(1, name);
  if (typeof value === "number") return message.integer(3, value).integer(20, ATTRIBUTE_INT);
  if ("float" in value) return message.float(2, value.float).integer(20, ATTRIBUTE_FLOAT);
  for (const entry of value) message.integer(8, entry); // declared without packing
  return message.integer(20, ATTRIBUTE_INTS);
}

function value(name: string, shape: readonly (number | string)[]): Message {
  const dimensions = new Message();
  for (const size of shape)
    dimensions.message(1, typeof size === "number" ? new Message().integer(1, size) : new Message().string(2, size));
  const tensor = new Message().integer(1, TENSOR_FLOAT).message(2, dimensions);
  return new Message().string(1, name).message(2, new Message().message(1, tensor));
}
