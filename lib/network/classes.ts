/** Which class of a network is which of a data set: by their names, where both have any. */
import type { AnyDataset } from "../data/dataset.js";
import { composed } from "../data/walk.js";
import { RevNetError } from "../errors.js";
import type { NetworkSpec } from "./spec.js";

/** Names that are listed in a message. */
const SHOWN = 10;

/** What data sets without names have. */
const isNumbered = (names: readonly string[]) => names.every((name, label) => name === `class ${label}`);
const listed = (names: readonly string[]) => `${names.slice(0, SHOWN).join(", ")}${names.length > SHOWN ? ", ..." : ""}`;

/**
 * The network's label of each class of the data; undefined where labels mean the same in both. Data may lack some of the network's classes.
 * @param names the network's names, where they are known
 * @throws RevNetError ERR_INVALID_ARGUMENT naming the classes that the network has not
 */
export function matchClasses(
  { name, classes: count }: NetworkSpec,
  names: readonly string[] | undefined,
  { name: data, classes: given }: Pick<AnyDataset, "name" | "classes">,
): Int32Array | undefined {
  const [own, classes] = [names?.map(composed), given.map(composed)];
  if (own === undefined || isNumbered(own) || isNumbered(classes)) {
    if (classes.length === count) return undefined;
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `data: ${data} has ${classes.length} classes and ${name} ${count}, and without names on both sides they cannot be matched`,
    );
  }
  if (classes.length === count && classes.every((each, label) => each === own[label])) return undefined;
  const labels = new Map(own.map((each, label) => [each, label]));
  const unknown = classes.filter((each) => !labels.has(each));
  if (unknown.length > 0)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `data: ${unknown.length} of the ${classes.length} classes of ${data} (${listed(unknown)}) are not among the ${count} that ${name} was trained on (${listed(own)})`,
    );
  return Int32Array.from(classes, (each) => labels.get(each)!);
}
