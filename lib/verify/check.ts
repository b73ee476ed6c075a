/** What a check of `revnet doctor --verify` is, and the time that all of them have together. */

import type { DeviceOptions } from "../../binding.js";
import { RevNetError } from "../errors.js";
import type { Precision } from "../network/device.js";

/** What is verified. */
export interface Subject {
  /** "auto" is resolved. */
  readonly device: Omit<DeviceOptions, "precision">;
  /** Those that the device has, or the one that was asked for. */
  readonly precisions: readonly Precision[];
}

export interface Check {
  /** Such as "reversible, bfloat16". */
  readonly name: string;
  /** Throws a Failure, or any other error, where the device is not to be trusted; BudgetOver where the time did not suffice. */
  run(budget: Budget): Promise<Outcome>;
}

export interface Outcome {
  /** What was seen, in a line. */
  readonly detail: string;
  /** The same as numbers and hashes. */
  readonly figures?: Readonly<Record<string, number | string>>;
}

export interface CheckResult extends Outcome {
  readonly check: string;
  readonly status: "PASS" | "FAIL" | "SKIPPED";
  readonly seconds: number;
}

/** A check found something wrong. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly figures?: Outcome["figures"],
  ) {
    super(message);
  }
}

/** The time is over; `done` says what had been checked until then. */
export class BudgetOver extends Error {
  constructor(done = "") {
    super(`budget over${done && ` after ${done}`}`);
  }
}

export class Budget {
  readonly #deadline: number;

  constructor(seconds: number) {
    this.#deadline = performance.now() + 1000 * seconds;
  }

  get over(): boolean {
    return performance.now() >= this.#deadline;
  }

  /** @throws BudgetOver */
  require(done = ""): void {
    if (this.over) throw new BudgetOver(done);
  }

  /** Disposes of `owned` when the work has ended, or else when the time is over, which stops the work. @throws BudgetOver then */
  async within<D extends { dispose(): void }, T>(owned: D, work: (owned: D) => Promise<T>): Promise<T> {
    let stopped = false;
    const stop = () => {
      stopped = true;
      owned.dispose();
    };
    const timer = setTimeout(stop, this.#deadline - performance.now());
    try {
      return await work(owned);
    } catch (error) {
      if (stopped && error instanceof RevNetError && error.code === "ERR_DISPOSED") throw new BudgetOver();
      throw error;
    } finally {
      clearTimeout(timer);
      owned.dispose();
    }
  }
}

/** Runs a check; whatever it throws becomes its result. */
export async function resultOf(check: Check, budget: Budget): Promise<CheckResult> {
  const start = performance.now();
  const result = (status: CheckResult["status"], outcome: Outcome): CheckResult => ({
    check: check.name,
    status,
    seconds: (performance.now() - start) / 1000,
    ...outcome,
  });
  try {
    budget.require();
    return result("PASS", await check.run(budget));
  } catch (error) {
    if (error instanceof BudgetOver) return result("SKIPPED", { detail: error.message });
    if (error instanceof Failure)
      return result("FAIL", { detail: error.message, ...(error.figures && { figures: error.figures }) });
    const { code, message } = error as { code?: string; message?: string };
    return result("FAIL", { detail: code === undefined ? String(error) : `${code}: ${message}` });
  }
}
