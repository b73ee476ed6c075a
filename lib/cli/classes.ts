/** Whether a network and a data set are about the same classes. */
import type { Network } from "../network/network.js";
import { UsageError } from "./command.js";
import { printError } from "./output.js";

/** Refuses another number of classes; other names, or another order of them, are warned of: labels then mean something else. */
export function compareClasses({ spec, classNames }: Network, data: string, classes: readonly string[]): void {
  if (classes.length !== spec.classes)
    throw new UsageError(`the model has ${spec.classes} classes, and ${data} has ${classes.length}`);
  const i = classes.findIndex((name, label) => classNames !== undefined && classNames[label] !== name);
  if (i >= 0)
    printError(
      `warning: the classes of ${data} are not those that the model was trained on: class ${i} is '${classes[i]}', and was '${classNames![i]}'`,
    );
}
