/** revnet inspect */
import { readModel } from "../network/file.js";
import { resolveModel } from "../network/models.js";
import { ParameterLayout } from "../network/parameters.js";
import { type Block, buildTopology, type Extent, type Topology } from "../network/topology.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { print, printJson, table } from "./output.js";

interface Layer {
  name: string;
  description: string;
  /** [height, width, channels] over all streams. */
  output: [number, number, number];
  parameters: number;
}

export const inspect = defineCommand({
  name: "inspect",
  summary: "Layers, shapes and exact parameter counts of a model: a published name, a path to a JSON file, or a saved network.",
  positionals: "MODEL",
  arity: [1, 1],
  flags: { classes: { type: "integer", help: "number of classes (default: the model's)" }, ...JSON_FLAG },
  async run({ classes, json }, [model]) {
    const overrides = classes === undefined ? {} : { classes };
    const spec = model!.endsWith(".safetensors")
      ? resolveModel((await readModel(model!)).spec, overrides)
      : resolveModel(model!, overrides);
    const topology = buildTopology(spec);
    const layout = new ParameterLayout(topology);
    const layers = listLayers(topology, layout);
    if (json) {
      const tensors = [...layout.entries.values()].map(({ name, shape, buffer }) => ({
        name,
        shape,
        trained: buffer === "parameters",
      }));
      printJson({ ...spec, model: spec.name, parameters: layout.count, layers, tensors });
      return 0;
    }
    print([
      `${spec.name}: ${spec.kind}, ${spec.input.join("x")} images, ${spec.classes} classes, ${layout.count.toLocaleString("en")} parameters`,
      "",
      ...table([
        ["layer", "", "output", "parameters"],
        ...layers.map(({ name, description, output, parameters }) => [
          name,
          description,
          output.join("x"),
          parameters.toLocaleString("en"),
        ]),
      ]),
    ]);
    return 0;
  },
});

function listLayers(topology: Topology, layout: ParameterLayout): Layer[] {
  const { stem, blocks, head, streams, spec } = topology;
  const trained = [...layout.entries.values()].filter(({ buffer }) => buffer === "parameters");
  const parametersOf = (prefix: string) =>
    trained.filter(({ name }) => name.startsWith(`${prefix}.`)).reduce((sum, { elements }) => sum + elements, 0);
  const shape = ({ h, w, c }: Extent, streamsOf: number): [number, number, number] => [h, w, c * streamsOf];
  const { kernel, stride } = stem.convolution.shape;
  return [
    {
      name: "stem",
      description: `conv ${kernel}x${kernel}${stride > 1 ? `, stride ${stride}` : ""}${stem.maxPool ? ", max pool" : ""}`,
      output: shape(blocks[0]!.input, streams),
      parameters: parametersOf("stem"),
    },
    ...blocks.map((block) => {
      const name = `stages.${block.stage}.${block.index}`;
      return { name, description: describeBlock(block), output: shape(block.output, streams), parameters: parametersOf(name) };
    }),
    {
      name: "head",
      description: "average pool, linear",
      output: [1, 1, spec.classes] as [number, number, number],
      parameters: parametersOf(head.norm.name.split(".")[0]!),
    },
  ];
}

function describeBlock({ f, shortcuts, reversible }: Block): string {
  const kernels = f.layers.map(({ shape }) => `${shape.kernel}x${shape.kernel}`).join(", ");
  const { stride } = f.layers[0]!.shape;
  const shortcut = shortcuts[0]!.type === "identity" ? "" : `, ${shortcuts[0]!.type} shortcut`;
  return `${reversible ? "reversible" : "residual"} ${kernels}${stride > 1 ? `, stride ${stride}` : ""}${shortcut}`;
}
