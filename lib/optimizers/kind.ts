import type { BufferId, Op } from "../../binding.js";
import type { Kind } from "../kinds.js";

/** Of a number or a boolean: what it may be, and its flag's help. */
export interface Setting<T> {
  readonly kind: Kind<T>;
  /** Absent: it has to be given. */
  readonly fallback?: T;
  readonly help: string;
}

/** What an optimizer's op reads and writes. All but the last two are flat, [elements]. */
export interface UpdateOperands {
  readonly elements: number;
  /** Weight decay applies to so many elements, the first ones. */
  readonly decayed: number;
  readonly parameters: BufferId;
  readonly gradients: BufferId;
  /** As `OptimizerKind.hyperparameters` lists them. */
  readonly hyperparameters: BufferId;
  readonly notFinite: BufferId;
}

/** What an optimizer's file exports, and lib/optimizers/index.ts lists. `Recipe`: its settings, as a recipe has them. */
export interface OptimizerKind<Recipe, Complete = Required<Omit<Recipe, "type">>> {
  readonly settings: { readonly [K in keyof Complete]: Setting<Complete[K]> };
  /** One value of each for every parameter, 0 at first; by these names checkpoints keep them. */
  readonly state: readonly string[];
  /** What the op reads anew in each step. */
  readonly hyperparameters: readonly string[];
  /** Their values. @param step steps done */
  values(settings: Complete, step: number): readonly number[];
  /** The op that makes a step. @param state buffers, in the order of `state` */
  update(operands: UpdateOperands, state: readonly BufferId[]): Op;
}
