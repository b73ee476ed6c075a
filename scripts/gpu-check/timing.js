/** The parts of gpu-check that time steps: ours, and in turns with them the peer's. */
const path = require("node:path");
const { PEERS, hasPeer, startPeers, timePeer } = require("./peers.js");
const { lastLine } = require("./text.js");

const REVNET = [process.execPath, path.resolve(__dirname, "../../dist/cli/main.js")];
const PRECISIONS = ["bfloat16", "tf32", "float32"];
const CIFAR_MODELS = ["revnet-38", "resnet-32", "revnet-110", "resnet-110", "revnet-164", "resnet-164"];
const BATCH_SIZES = [100, 1024];
/** So many of the models have their peers started ahead. */
const AHEAD = 2;

/** The most important first. */
const jobsOf = (models, batchSizes) =>
  models.flatMap((model) => PRECISIONS.flatMap((precision) => batchSizes.map((batchSize) => ({ model, batchSize, precision }))));

const activationsOf = (model) => (model.startsWith("revnet") ? ["reversible", "stored"] : ["stored"]);

function peers(part, options) {
  const { models = CIFAR_MODELS, batchSizes = BATCH_SIZES } = options;
  const jobs = jobsOf(models.slice(0, AHEAD), batchSizes);
  return startPeers(
    part,
    options,
    jobs.flatMap((job) => activationsOf(job.model).map((activations) => ({ ...job, activations }))),
  );
}

/** One round of ours. @returns the timings of `revnet bench`; null where the time was over, undefined where it failed: a note says why */
async function round(part, { device }, { model, batchSize, precision, steps = 20 }) {
  const args = ["bench", model, "--device", device, "--precision", precision, "--batch-size", String(batchSize), "--json"];
  const what = `${model}, batch ${batchSize}, ${precision}`;
  const { status, stdout, stderr } = await part.command(what, [...REVNET, ...args, "--steps", String(steps), "--rounds", "1"]);
  if (status === 0) return JSON.parse(stdout).timings;
  if (status !== null) part.record({ note: `${what}: ${lastLine(stderr)}` });
  return status === null ? null : undefined;
}

/** @param withPeer a round of ours, the peer's, and a round of ours again. @returns false where it failed */
async function compare(part, options, job, withPeer) {
  const { model, batchSize, precision } = job;
  const first = await round(part, options, job);
  if (!first) return first === null;
  const timings = [];
  if (withPeer)
    for (const { activations } of first) {
      const median = await timePeer(part, options, { ...job, activations });
      if (median !== undefined) timings.push({ name: "peer", model, activations, median });
    }
  const second = withPeer && timings.length > 0 ? await round(part, options, job) : null;
  const ours = first.map((timing, i) => {
    const rounds = [timing.median, ...(second ? [second[i].median] : [])];
    return { ...timing, median: rounds.reduce((a, b) => a + b) / rounds.length, rounds };
  });
  const peer = timings.length > 0 ? PEERS[precision].name : undefined;
  part.record({ model, batchSize, precision, peer, timings: [...ours, ...timings] });
  return second !== undefined;
}

async function times(part, options) {
  const { models = CIFAR_MODELS, batchSizes = BATCH_SIZES } = options;
  const withPeer = await hasPeer(part, options);
  // The models that matter most beside the peer, then the others alone, which take seconds, then these beside the peer too.
  const [most, others] = [models.slice(0, AHEAD), models.slice(AHEAD)].map((some) => jobsOf(some, batchSizes));
  let ok = true;
  for (const job of most) ok = (await compare(part, options, job, withPeer)) && ok;
  for (const job of others) ok = (await compare(part, options, job, false)) && ok;
  for (const job of withPeer ? others : []) ok = (await compare(part, options, job, true)) && ok;
  return ok;
}

async function imagenet(part, options) {
  let ok = true;
  const withPeer = await hasPeer(part, options);
  const jobs = (precisions) =>
    ["revnet-56", "resnet-50"].flatMap((model) => precisions.map((precision) => ({ model, batchSize: 32, precision, steps: 5 })));
  for (const job of jobs(["bfloat16", "tf32"])) ok = (await compare(part, options, job, false)) && ok;
  for (const job of withPeer ? jobs(["tf32"]) : []) ok = (await compare(part, options, job, true)) && ok;
  return ok;
}

module.exports = { imagenet, peers, times };
