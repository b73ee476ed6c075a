/** revnet gradcheck */
import { resolveModel } from "../network/models.js";
import { checkGradients, shrink } from "../training/gradient-check.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { print, printJson } from "./output.js";

/** One published network of each family: RevNet and ResNet, basic and bottleneck, both stems. */
const FAMILIES = ["revnet-38", "revnet-164", "resnet-32", "resnet-164", "revnet-56", "resnet-50"];

export const gradcheck = defineCommand({
  name: "gradcheck",
  summary:
    "Compares gradients with central differences in float64, on a small network of the models' kinds. Exits 1 above the tolerance.",
  positionals: "[MODEL...]",
  arity: [0, Number.POSITIVE_INFINITY],
  flags: {
    full: { type: "boolean", help: "check the models as they are, not shrunken (slow unless they are tiny)" },
    samples: { type: "integer", help: "elements of each parameter (default 4)" },
    tolerance: { type: "number", help: "largest relative error (default 1e-6)" },
    seed: { type: "integer", help: "of parameters and images (default 0)" },
    ...JSON_FLAG,
  },
  async run({ full = false, samples = 4, tolerance = 1e-6, seed = 0, json }, models) {
    if (samples < 1) throw new UsageError(`--samples expects a positive integer, got ${samples}`);
    if (seed < 0) throw new UsageError(`--seed expects a non-negative integer, got ${seed}`);
    const results = [];
    for (const model of models.length > 0 ? models : FAMILIES) {
      const spec = resolveModel(model);
      const small = full ? spec : shrink(spec);
      const checks = await checkGradients(small, { samples, seed });
      const worst = checks.reduce((a, b) => (Number.isNaN(a.error) || b.error <= a.error ? a : b));
      // Compared so that a NaN fails.
      const passed = worst.error <= tolerance;
      const checked = checks.reduce((sum, check) => sum + check.checked, 0);
      results.push({ model: small.name, checked, maxRelativeError: worst.error, parameter: worst.name, passed });
      if (!json)
        print(
          `${passed ? "ok  " : "FAIL"}  ${small.name}: largest relative error ${worst.error.toExponential(1)} over ${checked} elements (${worst.name})`,
        );
    }
    if (json) printJson({ tolerance, results });
    return results.every(({ passed }) => passed) ? 0 : 1;
  },
});
