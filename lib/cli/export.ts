/** revnet export */
import { stat } from "node:fs/promises";
import { loadNetwork } from "../network/network.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { bytes, print, printJson } from "./output.js";

export const exportModel = defineCommand({
  name: "export",
  summary: "Writes a trained network as an ONNX model: images in, logits and probabilities out.",
  positionals: "MODEL.safetensors OUT.onnx",
  arity: [2, 2],
  flags: JSON_FLAG,
  async run({ json }, [model, out]) {
    // So that the two arguments, exchanged, do not cost the model.
    if (!out!.endsWith(".onnx")) throw new UsageError(`expected a file to write that ends in .onnx, got '${out}'`);
    const network = await loadNetwork(model!, { device: "cpu", threads: 1 });
    try {
      await network.exportOnnx(out!);
      const { size } = await stat(out!);
      const { name, input, classes } = network.spec;
      if (json) printJson({ model: name, file: out, bytes: size, input, classes });
      else
        print(
          `${name}: ${out}, ${bytes(size)}; images [batch, ${input.join(", ")}] in [0, 255] to ${classes} logits and probabilities`,
        );
      return 0;
    } finally {
      network.dispose();
    }
  },
});
