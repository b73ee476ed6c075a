/** What a step takes and what it gives lie side by side, so that a device that copies takes one copy for each. */
import { expect } from "chai";
import { NetworkBuffers } from "../../lib/network/buffers.js";
import { resolveModel } from "../../lib/network/models.js";
import { trainingProgram } from "../../lib/network/program.js";
import { buildTopology } from "../../lib/network/topology.js";

describe("the buffers of a training step", () => {
  for (const model of ["revnet-38", "resnet-32"])
    it(`are one block in and one block out: ${model}`, () => {
      const topology = buildTopology(resolveModel(model));
      const buffers = new NetworkBuffers(topology);
      const images = buffers.add({ name: "images", type: "byte", elements: 2 * 3072, category: "data" });
      const labels = buffers.add({ name: "labels", type: "index", elements: 2, category: "data" });
      const source = { type: "dataset" as const, images, labels, count: 2, padding: 4, flip: true, scale: 1 };
      const program = trainingProgram(topology, buffers, {
        n: 2,
        activations: "reversible",
        streams: "fixed",
        source,
        optimizer: "sgd",
      });
      const firstLocal = buffers.records.length;
      const places = program.locals.flatMap(({ pinned }, i) => (pinned ? [firstLocal + i] : []));
      const { loss, correct, outOfRange, notFinite, inputs, hyperparameters } = program;
      const blocks = {
        out: [loss, correct, outOfRange, notFinite],
        in: [outOfRange, notFinite, inputs.indices, inputs.counter, hyperparameters],
      };
      for (const block of Object.values(blocks)) {
        const present = block.flatMap((id) => (id === undefined ? [] : [id]));
        // Views take no place of their own.
        const at = present.map((id) =>
          places.filter((place) => program.locals[place - firstLocal]!.parent === undefined).indexOf(id),
        );
        expect(at).to.deep.equal(at.map((_, i) => at[0]! + i));
        expect(at[0]).to.be.at.least(0);
      }
    });
});
