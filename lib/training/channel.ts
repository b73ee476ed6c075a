/** The way of events from the trainer to those who listen. */

/** Events an iterator may be behind before the sender waits for it. */
const CAPACITY = 64;

/**
 * Sends values to any number of async iterators, each from the moment it was made. While nobody iterates, values are dropped;
 * an iterator that falls CAPACITY values behind makes `send` wait, so nothing is lost and nothing piles up. Leaving a
 * `for await` loop ends that iterator only.
 */
export class EventChannel<T> {
  readonly #readers = new Set<Reader<T>>();
  #ended = false;
  #failure: { error: unknown } | undefined;
  #isHurried = false;

  async send(value: T): Promise<void> {
    for (const reader of this.#readers) reader.push(value);
    for (const reader of this.#readers) if (!this.#isHurried) await reader.room();
  }

  /** From now on `send` waits for nobody, and who waits in it does not any more: the little that is still to come is kept. */
  hurry(): void {
    this.#isHurried = true;
    for (const reader of this.#readers) reader.hurry();
  }

  /** No more values; iterators that have read all of them finish, or throw `failure.error`. */
  end(failure?: { error: unknown }): void {
    this.#ended = true;
    this.#failure = failure;
    for (const reader of this.#readers) reader.end(failure);
  }

  iterate(): AsyncIterableIterator<T> {
    const reader = new Reader<T>(() => this.#readers.delete(reader));
    if (this.#ended) reader.end(this.#failure);
    else this.#readers.add(reader);
    return reader;
  }
}

class Reader<T> implements AsyncIterableIterator<T> {
  readonly #detach: () => void;
  #queue: T[] = [];
  #ended = false;
  #isHurried = false;
  #failure: { error: unknown } | undefined;
  /** Wake up those that wait for a value or an end, and those that wait for room. */
  #wakeReaders: (() => void)[] = [];
  #wakeSenders: (() => void)[] = [];

  constructor(detach: () => void) {
    this.#detach = detach;
  }

  push(value: T): void {
    this.#queue.push(value);
    wakeAll(this.#wakeReaders);
  }

  hurry(): void {
    this.#isHurried = true;
    wakeAll(this.#wakeSenders);
  }

  async room(): Promise<void> {
    while (!this.#ended && !this.#isHurried && this.#queue.length >= CAPACITY)
      await new Promise<void>((wake) => this.#wakeSenders.push(wake));
  }

  end(failure?: { error: unknown }): void {
    this.#ended = true;
    this.#failure = failure;
    wakeAll(this.#wakeReaders);
    wakeAll(this.#wakeSenders);
  }

  async next(): Promise<IteratorResult<T>> {
    while (this.#queue.length === 0 && !this.#ended) await new Promise<void>((wake) => this.#wakeReaders.push(wake));
    if (this.#queue.length > 0) {
      const value = this.#queue.shift() as T;
      wakeAll(this.#wakeSenders);
      return { done: false, value };
    }
    this.#detach();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure.error;
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<T>> {
    this.#queue = [];
    this.end();
    this.#detach();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function wakeAll(waiting: (() => void)[]): void {
  for (const wake of waiting.splice(0)) wake();
}
