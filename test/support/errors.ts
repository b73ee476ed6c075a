import { expect } from "chai";
import { RevNetError } from "../../lib/errors.js";

/** Awaits a rejection with a RevNetError of this code, and returns its message. Fails if the promise is fulfilled. */
export async function rejection(promise: PromiseLike<unknown>, code: string): Promise<string> {
  let error: unknown;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  expect(error, `expected a rejection with ${code}`).to.be.instanceOf(RevNetError);
  expect((error as RevNetError).code, (error as RevNetError).message).to.equal(code);
  return (error as RevNetError).message;
}

/** The RevNetError that `body` throws. Fails if it throws none. */
export function thrown(body: () => unknown): RevNetError {
  try {
    body();
  } catch (error) {
    expect(error).to.be.instanceOf(RevNetError);
    return error as RevNetError;
  }
  throw new Error("expected an exception");
}
