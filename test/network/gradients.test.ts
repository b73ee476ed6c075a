/**
 * Gradients of whole networks against central differences, in float64 on the reference with real streams (fixed-point ones
 * are steps, without a derivative; their gradients are then compared with these).
 *
 * A difference across a kink of a ReLU or of the max pool says nothing. It shows in the two one-sided differences, which
 * then disagree by far more than curvature explains; such coordinates are left out, counted, and may be few.
 */
import { expect } from "chai";
import type { Network } from "../../lib/network/network.js";
import { largestDifference, randomImages, relativeError, roughNetwork, TINY, uniform } from "./support.js";

const STEP = 1e-6;
const COORDINATES = 12; // of each parameter tensor
const BATCH = 3;

for (const [title, spec] of Object.entries(TINY))
  describe(`gradients of a ${title}`, function () {
    this.timeout(300_000);
    const images = randomImages(spec, BATCH);
    const labels = [0, 3, 4];
    const networks: Network[] = [];
    const open = (streams: "fixed" | "float32") => {
      const network = roughNetwork(spec, { device: "reference", streams, poison: true });
      networks.push(network);
      return network;
    };
    afterEach(() => {
      for (const network of networks.splice(0)) network.dispose();
    });

    it("agree with central differences within 1e-6", async () => {
      const network = open("float32");
      const { loss, gradients } = await network.lossAndGradients(images, labels);
      const next = uniform(4);
      let worst = 0;
      let checked = 0;
      let kinks = 0;
      for (const [name, { data, shape }] of network.parameters) {
        const gradient = gradients.get(name)?.data;
        if (!gradient) continue; // running statistics
        const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
        for (const i of choose(data.length, next)) {
          const at = async (step: number) => {
            network.setParameters({ [name]: { shape, data: data.map((value, j) => (j === i ? value + step : value)) } });
            return (await network.lossAndGradients(images, labels)).loss;
          };
          const above = await at(STEP);
          const below = await at(-STEP);
          network.setParameters({ [name]: { shape, data } });
          const size = Math.max(Math.abs(gradient[i]!), scale);
          ++checked;
          if (Math.abs(above - 2 * loss + below) / STEP > 1e-3 * size) ++kinks;
          else worst = Math.max(worst, Math.abs((above - below) / (2 * STEP) - gradient[i]!) / size);
        }
      }
      console.log(`      largest relative error ${worst.toExponential(1)} in ${checked} coordinates, ${kinks} at kinks`);
      expect(checked).to.be.greaterThan(100);
      expect(kinks).to.be.below(0.03 * checked);
      expect(worst).to.be.below(1e-6);
    });

    it("are the same with fixed-point streams, up to their rounding", async () => {
      const real = await open("float32").lossAndGradients(images, labels);
      const fixed = await open("fixed").lossAndGradients(images, labels);
      expect(fixed.outOfRange).to.equal(0);
      expect(largestDifference(fixed.logits, real.logits)).to.be.below(1e-9);
      for (const [name, { data }] of real.gradients)
        expect(relativeError(fixed.gradients.get(name)!.data, data), name).to.be.below(1e-9);
    });
  });

/** Up to COORDINATES different indices below `length`. */
function choose(length: number, next: () => number): Set<number> {
  if (length <= COORDINATES) return new Set(Array(length).keys());
  const chosen = new Set<number>();
  while (chosen.size < COORDINATES) chosen.add(Math.floor(next() * length));
  return chosen;
}
