/**
 * What `revnet doctor --verify` does: whether a device that nobody has tried gives the results of the reference, gives them again,
 * takes the memory that it should, can be stopped, and how fast it is. What matters most comes first, as time may run out.
 */
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { chooseDevice, type DeviceOptions, PRECISIONS, type Precision } from "../network/device.js";
import { bitsChecks } from "./bits.js";
import { Budget, type Check, type CheckResult, resultOf, type Subject } from "./check.js";
import { networkChecks } from "./networks.js";
import { opChecks } from "./ops.js";
import { resourceChecks } from "./resources.js";
import { speedChecks } from "./speed.js";

/** @throws RevNetError where the device is not there, or lacks the precision that is asked for */
export function subjectOf(options: DeviceOptions): Subject {
  const { precision: asked, ...device } = chooseDevice(options).options;
  const has = (precision: Precision): boolean => {
    try {
      new native.Session({ ...device, precision }).dispose();
      return true;
    } catch (error) {
      // The first one every device has: without it there is no device.
      if (asked || precision === "float32" || !(error instanceof RevNetError)) throw error;
      return false;
    }
  };
  return { device, precisions: (asked ? [asked] : PRECISIONS).filter(has) };
}

export const checksOf = (subject: Subject): Check[] => [
  ...opChecks(subject),
  ...networkChecks(subject),
  ...bitsChecks(subject),
  ...resourceChecks(subject),
  ...speedChecks(subject),
];

/** The checks one after the other; those for which the time does not suffice are skipped. @param seconds for all of them */
export async function* verify(subject: Subject, seconds: number): AsyncGenerator<CheckResult, void> {
  const budget = new Budget(seconds);
  for (const check of checksOf(subject)) yield await resultOf(check, budget);
}
