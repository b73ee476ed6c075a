// Stops a run half-way, as a user's "stop" button would, goes on with it, and compares with a run that was never stopped: the
// weights are the same to the bit. A run that Ctrl-C or `kill -9` stopped is gone on with in the same way.
const { mkdtemp } = require("node:fs/promises");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { trainRevNet } = require("revnet");

const steps = Number(process.env.STEPS ?? 40);

async function main() {
  const model = path.join(__dirname, "revnet-shapes.json");
  const options = { model, data: "shapes", trainCount: 1000, testCount: 200, batchSize: 20, steps };
  const outDir = await mkdtemp(path.join(tmpdir(), "revnet-resume-"));

  const controller = new AbortController();
  const stopped = trainRevNet({ ...options, outDir, resume: true, signal: controller.signal });
  try {
    for await (const event of stopped) if (event.type === "step" && event.step >= steps / 2) controller.abort();
  } catch (error) {
    if (error.code !== "ERR_ABORTED") throw error;
    console.log(error.message);
  }

  const resumed = trainRevNet({ ...options, outDir, resume: true });
  for await (const event of resumed) if (event.type === "start") console.log(`going on from step ${event.resumedFrom}`);
  const [one, other] = [await resumed, await trainRevNet(options)];
  console.log(`resumed:   ${one.summary.weightsSha256}\nin one go: ${other.summary.weightsSha256}`);
  if (one.summary.weightsSha256 !== other.summary.weightsSha256) throw new Error("the weights differ");
  console.log(`the same, to the bit; the run's files are in ${outDir}`);
  for (const { network } of [one, other]) network.dispose();
}

main();
