/** Whether files that were opened are closed again. */
import { readdirSync } from "node:fs";
import { expect } from "chai";

/** Runs `body` several times and expects no more open files than before; where the system does not tell, it just runs. */
export async function expectClosed(body: () => Promise<unknown>): Promise<void> {
  const count = () => (process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0);
  await body();
  const before = count();
  for (let i = 0; i < 10; i++) await body();
  // Threads of the runtime may open one or the other meanwhile.
  expect(count() - before, "files that stay open").to.be.below(10);
}
