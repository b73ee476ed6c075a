import { number } from "../kinds.js";
import type { OptimizerKind } from "./kind.js";

/**
 * AdamW, PyTorch's (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019). Weight decay is for conv and linear weights
 * only.
 */
export interface AdamWRecipe {
  readonly type: "adamw";
  /** At its highest; default 0.001. */
  readonly learningRate?: number;
  /** Decay of the mean of gradients; default 0.9. */
  readonly beta1?: number;
  /** Decay of the mean of their squares; default 0.999. */
  readonly beta2?: number;
  /** Added to the root of the latter; default 1e-8. */
  readonly epsilon?: number;
  /** Default 0.01. */
  readonly weightDecay?: number;
}

// 1 would never leave the 0 that the means start from.
const decay = number(0, 0.9999999);

export const adamw: OptimizerKind<AdamWRecipe> = {
  settings: {
    learningRate: { kind: number(0, Infinity), fallback: 1e-3, help: "base learning rate (default 0.001)" },
    beta1: { kind: decay, fallback: 0.9, help: "of AdamW (default 0.9)" },
    beta2: { kind: decay, fallback: 0.999, help: "of AdamW (default 0.999)" },
    epsilon: { kind: number(0, 1), fallback: 1e-8, help: "of AdamW (default 1e-8)" },
    weightDecay: { kind: number(0, Infinity), fallback: 0.01, help: "of conv and linear weights (default 0.01)" },
  },
  state: ["exp_avg", "exp_avg_sq"],
  hyperparameters: ["shrink", "stepSize", "beta1", "1 - beta1", "beta2", "1 - beta2", "correction", "epsilon"],
  // In float64, as PyTorch does: 1 - 0.999 has lost half of its digits in float32.
  values({ learningRate, beta1, beta2, epsilon, weightDecay }, step) {
    const [first, second] = [1 - power(beta1, step + 1), 1 - power(beta2, step + 1)];
    return [learningRate * weightDecay, learningRate / first, beta1, 1 - beta1, beta2, 1 - beta2, Math.sqrt(second), epsilon];
  },
  update: (operands, [mean, square]) => ({ op: "adamwUpdate", ...operands, mean: mean!, square: square! }),
};

/** base ** exponent for an integer: the last bits of the engine's own power are its choice, those of multiplications are not. */
function power(base: number, exponent: number): number {
  let result = 1;
  for (let square = base, left = exponent; left > 0; square *= square, left = Math.floor(left / 2))
    if (left % 2 === 1) result *= square;
  return result;
}
