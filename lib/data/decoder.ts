/** Threads that decode and crop images, and the queue before them. */
import path from "node:path";
import { Worker } from "node:worker_threads";
import { RevNetError } from "../errors.js";
import { processorCount } from "../processors.js";
import type { Answer, Item, Task } from "./decode-worker.js";
import type { Shape } from "./picture.js";
import { loadSharp } from "./sharp.js";

export type { Item } from "./decode-worker.js";

/** Images that a thread is given at a time. */
const CHUNK = 4;
/** Chunks that a thread has, so that it reads one while it decodes the other. */
const IN_FLIGHT = 2;
const MAX_THREADS = 8;

type Job = Omit<Task, "shape" | "pack"> & { resolve: (answer: Answer) => void; reject: (error: unknown) => void };

interface Thread {
  readonly worker: Worker;
  readonly jobs: Map<number, Job>;
}

export interface Failure {
  readonly row: number;
  readonly reason: string;
}

export class Decoder {
  readonly #threads: Thread[] = [];
  readonly #waiting: Job[] = [];
  #last = 0;
  #closed = false;

  /** @throws RevNetError ERR_SHARP_MISSING, unless all comes from a pack */
  constructor(
    private readonly shape: Shape,
    private readonly pack?: string,
    private readonly most = Math.min(MAX_THREADS, processorCount()),
  ) {
    if (pack === undefined) loadSharp();
  }

  /** Makes images in rows of `target`. Resolves to those that failed, whose rows are as they were, and to the digests that were wanted. */
  async fill(target: SharedArrayBuffer, items: readonly Item[], resizedCrop = 0): Promise<Pick<Answer, "failures" | "digests">> {
    const answers = await this.#run(items, target, resizedCrop);
    return { failures: answers.flatMap(({ failures }) => failures), digests: answers.flatMap(({ digests }) => digests) };
  }

  /** Whole pictures, for packing, in the order of `items`. */
  async pictures(items: readonly Item[]): Promise<Pick<Answer, "failures" | "pictures">> {
    const answers = await this.#run(items, undefined, 0);
    return { failures: answers.flatMap(({ failures }) => failures), pictures: answers.flatMap(({ pictures }) => pictures) };
  }

  /** Ends the threads; what waits is rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    const threads = this.#threads.splice(0);
    const error = new RevNetError("ERR_DISPOSED", "the data set was closed");
    for (const { reject } of [...this.#waiting.splice(0), ...threads.flatMap(({ jobs }) => [...jobs.values()])]) reject(error);
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }

  async #run(items: readonly Item[], target: SharedArrayBuffer | undefined, resizedCrop: number): Promise<Answer[]> {
    if (this.#closed) throw new RevNetError("ERR_DISPOSED", "the data set was closed");
    const answers: Promise<Answer>[] = [];
    for (let first = 0; first < items.length; first += CHUNK)
      answers.push(
        new Promise((resolve, reject) => {
          const job = { id: ++this.#last, resizedCrop, items: items.slice(first, first + CHUNK), target, resolve, reject };
          this.#waiting.push(job);
        }),
      );
    this.#dispatch();
    return Promise.all(answers);
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#freeThread();
      if (!thread) return;
      const job = this.#waiting.shift()!;
      const { resolve: _, reject: __, ...task } = job;
      thread.jobs.set(job.id, job);
      thread.worker.ref(); // The process is kept alive by work, not by threads that wait for some.
      thread.worker.postMessage({ ...task, shape: this.shape, pack: this.pack } satisfies Task);
    }
  }

  /** The one with the least to do, a new one while there may be more. */
  #freeThread(): Thread | undefined {
    const idlest = this.#threads.reduce<Thread | undefined>((a, b) => (a && a.jobs.size <= b.jobs.size ? a : b), undefined);
    if ((!idlest || idlest.jobs.size > 0) && this.#threads.length < this.most) return this.#start();
    return idlest && idlest.jobs.size < IN_FLIGHT ? idlest : undefined;
  }

  #start(): Thread {
    const thread: Thread = { worker: new Worker(path.join(__dirname, "decode-worker.js")), jobs: new Map() };
    thread.worker.unref();
    thread.worker.on("message", (answer: Answer) => {
      thread.jobs.get(answer.id)?.resolve(answer);
      thread.jobs.delete(answer.id);
      if (thread.jobs.size === 0) thread.worker.unref();
      this.#dispatch();
    });
    const fail = (what: string, cause?: unknown) => this.#lose(thread, new RevNetError("ERR_INTERNAL", what, { cause }));
    thread.worker.on("error", (error) => fail(`a thread that decodes images failed: ${error.message}`, error));
    thread.worker.on("exit", (status) => fail(`a thread that decodes images ended with status ${status}`));
    this.#threads.push(thread);
    return thread;
  }

  #lose(thread: Thread, error: RevNetError): void {
    const at = this.#threads.indexOf(thread);
    if (at >= 0) this.#threads.splice(at, 1);
    for (const { reject } of thread.jobs.values()) reject(error);
    thread.jobs.clear();
    if (!this.#closed) this.#dispatch();
  }
}
