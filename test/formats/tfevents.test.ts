/** Event files, read back by a decoder that shares no code with the writer. */
import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { encodeEvent, fileHeader } from "../../lib/formats/tfevents.js";
import { readRun } from "../../lib/report/run-files.js";
import { writeEvents } from "../../lib/report/tensorboard.js";
import { validationLine, writeRun } from "../report/fixtures.js";

/** CRC-32C bit by bit, as its definition says. */
function crc32c(bytes: Uint8Array): bigint {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return crc ^ 0xffffffffn;
}

const masked = (bytes: Uint8Array) => {
  const crc = crc32c(bytes);
  return Number((((crc >> 15n) | (crc << 17n)) + 0xa282ead8n) & 0xffffffffn);
};

/** The records of a file, whose checksums must hold. */
function records(file: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    expect(file.readUInt32LE(at + 8)).to.equal(masked(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(data).to.have.length(length);
    expect(file.readUInt32LE(at + 12 + length)).to.equal(masked(data));
    found.push(data);
    at += 16 + length;
  }
  return found;
}

/** A message's fields: [number, value], bytes where it is neither a number nor a double. */
function fields(message: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const field = key >> 3;
    const type = key & 7;
    if (type === 0) {
      found.push([field, varint()]);
      continue;
    }
    const length = type === 1 ? 8 : type === 5 ? 4 : varint();
    const value = message.subarray(at, at + length);
    found.push([field, type === 1 ? value.readDoubleLE() : type === 5 ? value.readFloatLE() : value]);
    at += length;
  }
  return found;
}

function event(record: Buffer) {
  const all = new Map(fields(record));
  const values = all.has(5) ? fields(all.get(5) as Buffer).map(([, value]) => new Map(fields(value as Buffer))) : [];
  return {
    wallTime: all.get(1),
    step: all.get(2),
    version: all.get(3)?.toString(),
    scalars: Object.fromEntries(values.map((value) => [value.get(1)!.toString(), value.get(2)])),
  };
}

describe("event files", () => {
  it("use CRC-32C", () => {
    expect(crc32c(Buffer.from("123456789"))).to.equal(0xe3069283n);
  });

  it("are records of events", () => {
    const [header, first] = records(
      Buffer.concat([fileHeader(1.5), encodeEvent({ wallTime: 2.25, step: 300, scalars: { a: 0.5, b: -2 } })]),
    );
    expect(event(header!)).to.deep.include({ wallTime: 1.5, version: "brain.Event:2" });
    expect(event(first!)).to.deep.include({ wallTime: 2.25, step: 300, scalars: { a: 0.5, b: -2 } });
  });

  it("hold a run's metrics", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-events-"));
    try {
      await writeRun(folder);
      const written = Date.now() / 1000;
      await writeEvents(await readRun(folder));
      const [, ...events] = records(await readFile(path.join(folder, "tensorboard", "events.out.tfevents.revnet"))).map(event);
      expect(events.map(({ step }) => step)).to.deep.equal(Array.from({ length: 20 }, (_, i) => i + 1));
      expect(Object.keys(events[0]!.scalars)).to.deep.equal(["loss/train", "error/train", "learning_rate", "images_per_second"]);
      expect(events[0]!.scalars).to.include({ "loss/train": Math.fround(1.999), "error/train": 0.5, images_per_second: 500 });
      expect(events[9]!.scalars).to.include({ "loss/test": 2.5, "error/test": 0.25 });
      await appendFile(
        path.join(folder, "metrics.jsonl"),
        `${JSON.stringify({ ...JSON.parse(validationLine(20)), split: "validation" })}\n`,
      );
      await writeEvents(await readRun(folder));
      const rewritten = records(await readFile(path.join(folder, "tensorboard", "events.out.tfevents.revnet"))).map(event);
      expect(rewritten.at(-1)!.scalars).to.include({ "loss/validation": 2.5, "error/validation": 0.25 });
      expect((events[9]!.wallTime as number) - (events[8]!.wallTime as number)).to.be.closeTo(0.02, 1e-5);
      // The last step counts as done when the file is written.
      expect(events[19]!.wallTime as number)
        .to.be.at.least(written - 1e-3)
        .and.at.most(Date.now() / 1000 + 1e-3);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
