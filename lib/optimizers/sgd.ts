import { boolean, number } from "../kinds.js";
import type { OptimizerKind } from "./kind.js";

/**
 * SGD with momentum, PyTorch's: v = momentum v + (g + weightDecay w); w -= learningRate v, or with `nesterov`
 * w -= learningRate (g + weightDecay w + momentum v). Weight decay is for conv and linear weights only.
 */
export interface SgdRecipe {
  readonly type?: "sgd";
  /** At its highest: what the schedule starts from. */
  readonly learningRate: number;
  /** In [0, 1]. */
  readonly momentum: number;
  /** Default false. */
  readonly nesterov?: boolean;
  readonly weightDecay: number;
}

export const sgd: OptimizerKind<SgdRecipe> = {
  settings: {
    learningRate: { kind: number(0, Infinity), help: "base learning rate (default: the model's recipe)" },
    momentum: { kind: number(0, 1), help: "of SGD (default: the model's recipe)" },
    nesterov: { kind: boolean, fallback: false, help: "Nesterov's momentum" },
    weightDecay: { kind: number(0, Infinity), help: "of conv and linear weights (default: the model's recipe)" },
  },
  state: ["momentum"],
  hyperparameters: ["learningRate", "momentum", "weightDecay", "nesterov"],
  values: ({ learningRate, momentum, weightDecay, nesterov }) => [learningRate, momentum, weightDecay, Number(nesterov)],
  update: (operands, [momenta]) => ({ op: "sgdUpdate", ...operands, momenta: momenta! }),
};
