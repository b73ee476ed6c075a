// A network of one's own: what it would need is known before anything is allocated, and its gradients can be checked.
import { checkGradients, createNetwork, memoryPlan, resolveModel } from "revnet";

// Either a published network with some keys replaced, or all keys, as in own-data.mjs. The same works in a JSON file.
const deeper = { extends: "revnet-38", name: "revnet-74", units: [6, 6, 6] };
console.log(resolveModel(deeper));

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
for (const units of [3, 6, 12]) {
  const model = { ...deeper, name: `revnet-${12 * units + 2}`, units: [units, units, units] };
  const [reversible, stored] = ["reversible", "stored"].map((activations) => memoryPlan(model, { batchSize: 100, activations }));
  console.log(
    `${model.name}: activations ${mebibytes(reversible.activations)}, stored they would take ${mebibytes(stored.activations)}`,
  );
}

// Central differences in float64 on a few entries of each tensor: small images make it quick.
const small = resolveModel({ ...deeper, name: "small", input: [8, 8, 3], filters: [4, 4, 8, 8], units: [2, 1, 1] });
const checks = await checkGradients(small, { samples: 1 });
console.log(`largest relative error of a gradient: ${Math.max(...checks.map(({ error }) => error)).toExponential(1)}`);

const network = createNetwork(deeper, { seed: 1 });
console.log(`${network.parameterCount} parameters on ${network.description}`);
network.dispose();
