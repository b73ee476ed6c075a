// Stops a run after 20 steps, as a user's "stop" button would. With `outDir`, what was trained by then is written.
const { trainRevNet } = require("revnet");

async function main() {
  const controller = new AbortController();
  const run = trainRevNet({ model: "revnet-38", data: "shapes", epochs: 100, outDir: "runs/aborted", signal: controller.signal });
  try {
    for await (const event of run) if (event.type === "step" && event.step === 20) controller.abort();
  } catch (error) {
    if (error.code !== "ERR_ABORTED") throw error;
    console.log(`${error.message}; see runs/aborted`);
  }
}

main();
