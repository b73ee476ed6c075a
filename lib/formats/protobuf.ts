/**
 * The wire format of Protocol Buffers, as far as writing needs it: a message is its fields one after another, each a tag (the
 * field's number and how its value is written) and a value. Byte strings are kept by reference, so that weights are not copied.
 */

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;
/** Bytes of a piece; shorter strings are joined, since a file of many small pieces would be slow to write. */
const PIECE = 65536;

export class Message {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  /** In bytes. */
  get length(): number {
    return this.#length;
  }

  /** The message, cut anywhere. */
  pieces(): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let short: Uint8Array[] = [];
    let bytes = 0;
    const join = () => {
      if (bytes > 0) pieces.push(Buffer.concat(short));
      short = [];
      bytes = 0;
    };
    for (const chunk of this.#chunks) {
      if (chunk.length < PIECE) {
        short.push(chunk);
        bytes += chunk.length;
      }
      if (chunk.length >= PIECE || bytes >= PIECE) join();
      if (chunk.length >= PIECE) pieces.push(chunk);
    }
    join();
    return pieces;
  }

  /** int32, int64 or enum; `value` is a safe integer and not negative. */
  integer(field: number, value: number): this {
    return this.#append([varint(tag(field, VARINT)), varint(value)]);
  }

  float(field: number, value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return this.#append([varint(tag(field, FIXED32)), bytes]);
  }

  double(field: number, value: number): this {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleLE(value);
    return this.#append([varint(tag(field, FIXED64)), bytes]);
  }

  string(field: number, value: string): this {
    return this.bytes(field, Buffer.from(value, "utf8"));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#append([varint(tag(field, LENGTH)), varint(value.length), value]);
  }

  /** A repeated integer field, packed. */
  integers(field: number, values: readonly number[]): this {
    return this.bytes(field, Buffer.concat(values.map(varint)));
  }

  message(field: number, message: Message): this {
    const body = message.length < PIECE ? [Buffer.concat(message.#chunks)] : message.#chunks;
    return this.#append([varint(tag(field, LENGTH)), varint(message.length)]).#append(body);
  }

  #append(chunks: readonly Uint8Array[]): this {
    for (const chunk of chunks) {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
    }
    return this;
  }
}

const tag = (field: number, type: number) => field * 8 + type;

/** Seven bits a byte, the lowest first; all bytes but the last have their top bit set. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return Uint8Array.from(bytes);
}
