/** How fast a device copies, and how near to that its training steps come. */
import type { BufferRecord, Op } from "../../binding.js";
import { native } from "../native/index.js";
import type { Precision } from "../network/device.js";
import { resolveModel } from "../network/models.js";
import { createNetwork } from "../network/network.js";
import { stepStatistics } from "../training/summary.js";
import { type Budget, type Check, Failure, type Outcome, type Subject } from "./check.js";
import { trainedHash } from "./networks.js";
import { stepKernels, storageOf } from "./roofline.js";
import { stepTimer } from "./timing.js";

const MODEL = "revnet-38";
const BATCH = 100;
const STEPS = 10;
/** Copies of a run, so that starting it does not count. */
const COPIES = 20;
/** Elements of a buffer, of 4 bytes: from what any device copies soon to far more than the caches of any hold. */
const SMALLEST = 2 ** 16;
const LARGEST = 2 ** 27;
/** A run this long is measured well enough; on a slow device with smaller buffers. */
const LONG_ENOUGH_MS = 200;

export function speedChecks(subject: Subject): Check[] {
  const measured: { bandwidth?: number } = {};
  return [
    {
      name: "copy bandwidth",
      run: async (budget) => {
        const { bandwidth, elements } = await copyBandwidth(subject, budget);
        measured.bandwidth = bandwidth;
        const detail = `${gigabytes(bandwidth)}/s read and written, between buffers of ${(elements * 4) / 2 ** 20} MiB`;
        return { detail, figures: { bytesPerSecond: bandwidth } };
      },
    },
    ...subject.precisions.flatMap((precision): Check[] => [
      { name: `${MODEL} to the bit, ${precision}`, run: (budget) => equalHashes(subject, precision, budget) },
      { name: `${MODEL} step, ${precision}`, run: (budget) => stepTime(subject, precision, measured.bandwidth, budget) },
    ]),
  ];
}

/** Of copies between two buffers, back and forth; buffers grow until a run takes long enough. */
async function copyBandwidth({ device }: Subject, budget: Budget): Promise<{ bandwidth: number; elements: number }> {
  for (let elements = SMALLEST; ; elements *= 2) {
    budget.require();
    const bandwidth = await budget.within(new native.Session(device), async (session) => {
      const buffer = (name: string): BufferRecord => ({ name, type: "real", elements, category: "data" });
      const [a, b] = [session.addBuffer(buffer("a")), session.addBuffer(buffer("b"))];
      const ops = Array.from({ length: COPIES }, (_, i): Op => ({ op: "copy", elements, x: i % 2 ? b : a, y: i % 2 ? a : b }));
      const program = session.addProgram({ locals: [], ops });
      let fastest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < 4; ++i) {
        const start = performance.now();
        await session.run(program, [], []);
        fastest = Math.min(fastest, performance.now() - start);
      }
      const isLast = 2 * elements > LARGEST || 4 * elements * 4 > native.availableMemory(device.device) / 4;
      return isLast || fastest > LONG_ENOUGH_MS ? (COPIES * 2 * elements * 4) / (fastest / 1000) : undefined;
    });
    if (bandwidth !== undefined) return { bandwidth, elements };
  }
}

/** The promise of the package, on a network of the size that it is for: reversible training has the weights of stored training. */
async function equalHashes({ device }: Subject, precision: Precision, budget: Budget): Promise<Outcome> {
  const spec = resolveModel(MODEL);
  const after = (activations: "reversible" | "stored") =>
    budget.within(createNetwork(spec, { ...device, precision }), (network) => trainedHash(network, activations, STEPS, BATCH));
  const [reversible, again, stored] = [await after("reversible"), await after("reversible"), await after("stored")];
  if (reversible !== again) throw new Failure(`${STEPS} steps, done twice, gave different weights`);
  if (reversible !== stored) throw new Failure(`${STEPS} steps gave different weights reversible and stored`);
  const detail = `batch ${BATCH}, ${STEPS} steps: twice reversible and once stored ${reversible.slice(0, 12)}`;
  return { detail, figures: { sha256: reversible } };
}

async function stepTime(
  { device }: Subject,
  precision: Precision,
  bandwidth: number | undefined,
  budget: Budget,
): Promise<Outcome> {
  const spec = resolveModel(MODEL);
  return budget.within(createNetwork(spec, { ...device, precision }), async (network) => {
    const time = await stepTimer(network, "reversible", BATCH);
    const { median } = stepStatistics(await time(STEPS));
    const detail = `${median.toFixed(2)} ms at batch ${BATCH}, reversible`;
    const figures = { milliseconds: median };
    if (bandwidth === undefined) return { detail, figures };
    const least = stepKernels(spec, BATCH, "reversible", storageOf(precision)).kernels.reduce(
      (sum, kernel) => sum + kernel.bytes,
      0,
    );
    const share = least / bandwidth / (median / 1000);
    return {
      detail: `${detail}; its ${gigabytes(least)} at the bandwidth measured would take ${(100 * share).toFixed(0)} % of that`,
      figures: { ...figures, leastBytes: least, share },
    };
  });
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
