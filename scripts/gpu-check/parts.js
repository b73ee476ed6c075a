/** The parts of gpu-check, in the order in which they run by default: the most important first. */
const { exits, hashes, sanitizer, suites, verify } = require("./correctness.js");
const { profile, step } = require("./profiles.js");
const { imagenet, peers, times } = require("./timing.js");
const { train } = require("./training.js");

/**
 * `limit`: seconds. `together`: runs at the same time as its neighbours that have it too. `mayBeCut`: what is done within the limit is
 * enough. `byDefault`: runs where no parts are named.
 */
const PARTS = [
  { name: "verify", limit: 90, what: "revnet doctor --verify", run: verify, byDefault: true },
  { name: "suites", limit: 100, what: "the tests that name CUDA", run: suites, together: true, byDefault: true },
  {
    name: "sanitizer",
    limit: 100,
    what: "NVIDIA's memcheck and racecheck over the ops",
    run: sanitizer,
    together: true,
    byDefault: true,
  },
  { name: "hashes", limit: 100, what: "equal bits after 200 steps of revnet-38", run: hashes, together: true, byDefault: true },
  { name: "exits", limit: 100, what: "50 processes that end in mid-step", run: exits, together: true, byDefault: true },
  {
    name: "peers",
    limit: 100,
    what: "starts the peers that times will wait for",
    run: peers,
    together: true,
    mayBeCut: true,
    byDefault: true,
  },
  {
    name: "times",
    limit: 150,
    what: "steps of the six models for CIFAR, in turns with the peer",
    run: times,
    mayBeCut: true,
    byDefault: true,
  },
  { name: "step", limit: 60, what: "ncu on one step of revnet-38: time and bytes by kernel", run: step, byDefault: true },
  { name: "profile", limit: 60, what: "ncu on the kernels of one residual function", run: profile, byDefault: true },
  { name: "imagenet", limit: 60, what: "steps of revnet-56 and resnet-50 at 224x224, batch 32", run: imagenet, mayBeCut: true },
  { name: "train", limit: 310, what: "revnet-38 on CIFAR-10 by the paper's recipe, in bfloat16", run: train, mayBeCut: true },
];
const DEFAULT_PARTS = PARTS.filter(({ byDefault }) => byDefault).map(({ name }) => name);

module.exports = { DEFAULT_PARTS, PARTS };
