// Stops a run after 20 steps, as a user's "stop" button would. With `outDir`, what was trained by then is written, and a
// checkpoint: run this again, and it goes on for 20 more.
const { trainRevNet } = require("revnet");

async function main() {
  const controller = new AbortController();
  const { signal } = controller;
  const run = trainRevNet({ model: "revnet-38", data: "shapes", epochs: 100, outDir: "runs/aborted", resume: true, signal });
  let steps = 0;
  try {
    for await (const event of run) if (event.type === "step" && ++steps === 20) controller.abort();
  } catch (error) {
    if (error.code !== "ERR_ABORTED") throw error;
    console.log(`${error.message}; see runs/aborted`);
  }
}

main();
