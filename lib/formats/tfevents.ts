/**
 * TensorBoard's event files: records one after another, each its length, that length's checksum, an Event message and its
 * checksum. Checksums are CRC-32C, rotated and offset, since a CRC of data that holds CRCs says little.
 */
import { Message } from "./protobuf.js";

export interface ScalarEvent {
  /** Seconds since 1970. */
  wallTime: number;
  step: number;
  /** By tag, such as "loss/train". */
  scalars: Readonly<Record<string, number>>;
}

const VERSION = "brain.Event:2";

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!;
  crc = ~crc;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function frame(message: Message): Buffer {
  const { length } = message;
  const record = Buffer.alloc(length + 16);
  record.writeBigUInt64LE(BigInt(length), 0);
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
  record.set(Buffer.concat(message.pieces()), 12);
  record.writeUInt32LE(maskedCrc(record.subarray(12, 12 + length)), 12 + length);
  return record;
}

/** What a file begins with. */
export const fileHeader = (wallTime: number): Buffer => frame(new Message().double(1, wallTime).string(3, VERSION));

export function encodeEvent({ wallTime, step, scalars }: ScalarEvent): Buffer {
  const summary = new Message();
  for (const [tag, value] of Object.entries(scalars)) summary.message(1, new Message().string(1, tag).float(2, value));
  return frame(new Message().double(1, wallTime).integer(2, step).message(5, summary));
}
