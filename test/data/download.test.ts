import { createHash } from "node:crypto";
import { link, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import * as tar from "tar";
import { downloadDataset, openDataset } from "../../lib/index.js";
import { rejection } from "../support/errors.js";

const FILES = [
  "data_batch_1.bin",
  "data_batch_2.bin",
  "data_batch_3.bin",
  "data_batch_4.bin",
  "data_batch_5.bin",
  "test_batch.bin",
];

describe("downloads", () => {
  let folder: string;
  let archive: Buffer;
  let server: Server;
  /** Ranges that were asked for; "" where none was. */
  let asked: string[];
  /** How the next request is answered; default: as a server does that knows ranges. */
  let answer: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;

  /** How all requests are. */
  let always: typeof answer;

  const options = () => ({
    dataDir: path.join(folder, "data"),
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/cifar.tar.gz`,
    md5: createHash("md5").update(archive).digest("hex"),
  });
  const part = () => path.join(folder, "data", "cifar-10-binary.tar.gz.part");

  function serve(request: IncomingMessage, response: ServerResponse): void {
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    if (start >= archive.length) {
      response.writeHead(416).end();
      return;
    }
    const headers = {
      "content-length": archive.length - start,
      "content-range": `bytes ${start}-${archive.length - 1}/${archive.length}`,
    };
    response.writeHead(range ? 206 : 200, headers).end(archive.subarray(start));
  }

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-download-"));
    const inside = path.join(folder, "cifar-10-batches-bin");
    await mkdir(inside);
    for (const [i, name] of FILES.entries()) {
      // Noise, so that compression leaves something to break off.
      const record = Buffer.alloc(3073, createHash("sha256").update(name).digest());
      record[0] = i;
      await writeFile(path.join(inside, name), record);
    }
    await writeFile(path.join(inside, "batches.meta.txt"), Array.from({ length: 10 }, (_, i) => `kind-${i}\n`).join(""));
    await writeFile(path.join(inside, "readme.html"), "not wanted");
    await tar.c({ gzip: true, file: path.join(folder, "made.tar.gz"), cwd: folder }, ["cifar-10-batches-bin"]);
    archive = await readFile(path.join(folder, "made.tar.gz"));
    server = createServer((request, response) => {
      asked.push(request.headers.range ?? "");
      const given = answer ?? always ?? serve;
      answer = undefined;
      given(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  after(async () => {
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  });
  beforeEach(async () => {
    asked = [];
    [answer, always] = [undefined, undefined];
    await rm(path.join(folder, "data"), { recursive: true, force: true });
  });

  it("fetch, check and unpack a data set that then opens, with progress, and only once", async () => {
    const seen: (number | undefined)[][] = [];
    const result = await downloadDataset("cifar-10", { ...options(), onProgress: (...figures) => seen.push(figures) });
    expect(result.bytes).to.equal(archive.length);
    expect(seen.at(-1)).to.deep.equal([archive.length, archive.length]);
    expect((await readdir(options().dataDir)).sort()).to.deep.equal(["batches.meta.txt", ...FILES].sort());
    const dataset = await openDataset("cifar-10", { dataDir: options().dataDir });
    expect([dataset.train.count, dataset.test.count, dataset.classes[9]]).to.deep.equal([5, 1, "kind-9"]);
    expect((await downloadDataset("cifar-10", options())).bytes).to.equal(0);
    expect(asked).to.deep.equal([""]);
  });

  it("go on where a connection broke off", async () => {
    answer = (_, response) => {
      response.writeHead(200, { "content-length": archive.length });
      response.write(archive.subarray(0, 100), () => setTimeout(() => response.destroy(), 100));
    };
    const { bytes } = await downloadDataset("cifar-10", options());
    expect(asked[0]).to.equal("");
    expect(asked[1]).to.match(/^bytes=100-$/);
    expect(bytes).to.equal(archive.length);
  });

  it("go on where an earlier call left off, also with nothing left to fetch", async () => {
    for (const have of [150, archive.length]) {
      asked = [];
      await rm(path.join(folder, "data"), { recursive: true, force: true });
      await mkdir(path.join(folder, "data"));
      await writeFile(part(), archive.subarray(0, have));
      const result = await downloadDataset("cifar-10", options());
      expect(asked).to.deep.equal([`bytes=${have}-`]);
      expect(result.resumedFrom).to.equal(have);
    }
  });

  it("begin anew where the server knows no ranges", async () => {
    await mkdir(path.join(folder, "data"));
    await writeFile(part(), "something else entirely");
    answer = (_, response) => void response.writeHead(200, { "content-length": archive.length }).end(archive);
    await downloadDataset("cifar-10", options());
    expect(asked).to.have.length(1);
  });

  it("refuse what has another checksum, and remove it", async () => {
    await mkdir(path.join(folder, "data"));
    await writeFile(part(), Buffer.alloc(150));
    expect(await rejection(downloadDataset("cifar-10", options()), "ERR_INVALID_DATA"))
      .to.include(options().md5)
      .and.include("begins anew");
    expect(await readdir(path.join(folder, "data"))).to.deep.equal([]);
    expect((await downloadDataset("cifar-10", options())).bytes).to.equal(archive.length);
  });

  it("say what the network or the server did", async () => {
    answer = (_, response) => void response.writeHead(404).end();
    expect(await rejection(downloadDataset("cifar-10", options()), "ERR_NETWORK")).to.include("404 Not Found");
    const nobody = await rejection(downloadDataset("cifar-10", { ...options(), url: "http://127.0.0.1:1/x" }), "ERR_NETWORK");
    expect(nobody).to.include("3 times");
    await rejection(downloadDataset("cifar-10", { ...options(), url: "ftp://x" }), "ERR_INVALID_ARGUMENT");
    await rejection(downloadDataset("cifar-10", { ...options(), md5: "12" }), "ERR_INVALID_ARGUMENT");
    await rejection(downloadDataset("mnist" as "cifar-10", options()), "ERR_INVALID_ARGUMENT");
  });

  it("take silence for a failure, and try again", async () => {
    answer = () => {};
    await downloadDataset("cifar-10", { ...options(), timeout: 200 });
    expect(asked).to.deep.equal(["", ""]);
  });

  it("wait for a slow line, and not for a server that drips", async () => {
    const drip = (piece: number) => (_: IncomingMessage, response: ServerResponse) => {
      let at = 0;
      response.writeHead(200, { "content-length": archive.length });
      const timer = setInterval(() => {
        response.write(archive.subarray(at, at + piece));
        at += piece;
        if (at < archive.length) return;
        clearInterval(timer);
        response.end();
      }, 30);
      response.on("close", () => clearInterval(timer));
    };
    // Longer in all than the timeout.
    answer = drip(Math.ceil(archive.length / 40));
    await downloadDataset("cifar-10", { ...options(), timeout: 1000 });
    expect(asked).to.deep.equal([""]);

    await rm(path.join(folder, "data"), { recursive: true });
    always = drip(1);
    expect(await rejection(downloadDataset("cifar-10", { ...options(), timeout: 100 }), "ERR_NETWORK")).to.match(
      /only \d+ bytes came in 1 s, 3 times; the next download goes on from/,
    );
    expect(
      await rejection(downloadDataset("cifar-10", { ...options(), timeout: 10_000, totalTimeout: 150 }), "ERR_NETWORK"),
    ).to.match(/longer than 0.15 s/);
  });

  it("ask for the archive as it is, and refuse what is encoded on the way", async () => {
    let accepted: string | undefined;
    answer = (request, response) => {
      accepted = request.headers["accept-encoding"];
      const body = gzipSync(archive);
      response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
    };
    expect(await rejection(downloadDataset("cifar-10", options()), "ERR_NETWORK")).to.include("Content-Encoding: gzip");
    expect(accepted).to.equal("identity");
    expect(asked).to.have.length(1);
  });

  it("follow redirects, but not for ever, not to other protocols, and with a password for its own host alone", async () => {
    const seen: (string | undefined)[] = [];
    const { url } = options();
    const redirect = (location: string) => (request: IncomingMessage, response: ServerResponse) => {
      seen.push(request.headers.authorization);
      response.writeHead(302, { location }).end();
    };
    answer = redirect(url.replace("127.0.0.1", "localhost"));
    await downloadDataset("cifar-10", { ...options(), url: url.replace("//", "//me:secret@") });
    expect(seen).to.deep.equal([`Basic ${Buffer.from("me:secret").toString("base64")}`]);
    expect(asked).to.have.length(2);

    for (const [location, words] of [
      ["file:///etc/passwd", /no http or https URL/],
      ["/again", /after 5 redirects/],
    ] as const) {
      await rm(path.join(folder, "data"), { recursive: true, force: true });
      always = redirect(location);
      const message = await rejection(
        downloadDataset("cifar-10", { ...options(), url: url.replace("//", "//me:secret@") }),
        "ERR_NETWORK",
      );
      expect(message).to.match(words).and.not.include("secret");
    }
  });

  it("do not follow a redirect from https to http", async () => {
    const { fetch } = globalThis;
    const asked: string[] = [];
    globalThis.fetch = async (url) => {
      asked.push(String(url));
      return new Response(null, { status: 302, headers: { location: "http://mirror.example/cifar.tar.gz" } });
    };
    try {
      const failed = downloadDataset("cifar-10", { ...options(), url: "https://data.example/cifar.tar.gz" });
      expect(await rejection(failed, "ERR_NETWORK"))
        .to.include("http://mirror.example")
        .and.include("not to an https URL");
    } finally {
      globalThis.fetch = fetch;
    }
    expect(asked).to.deep.equal(["https://data.example/cifar.tar.gz"]);
  });

  it("print no password, whatever is wrong with the URL", async () => {
    for (const url of [
      "ftp://me:secret@host/x",
      "me:secret@host",
      "http://me:se/secret@host:port/",
      "http://me:secret@127.0.0.1:1/x",
    ]) {
      const failed = downloadDataset("cifar-10", { ...options(), url });
      const error = await failed.then(
        () => undefined,
        (reason: Error) => reason,
      );
      expect(`${error}`).to.not.include("secret").and.not.include("se/");
    }
  });

  it("write through no link, and into no pipe", async () => {
    await mkdir(path.join(folder, "data"));
    const target = path.join(folder, "precious");
    for (const make of [symlink, link]) {
      await writeFile(target, "precious");
      await make(target, part());
      expect(await rejection(downloadDataset("cifar-10", options()), "ERR_FILE")).to.include("remove it");
      expect(await readFile(target, "utf8")).to.equal("precious");
      await rm(part());
    }
    // A link to nothing would be made where it points to.
    await symlink(path.join(folder, "nowhere"), part());
    await rejection(downloadDataset("cifar-10", options()), "ERR_FILE");
    expect(await readdir(folder)).not.to.include("nowhere");
  });

  it("remove what an earlier one left that was killed while it unpacked, and nothing else", async () => {
    const left = path.join(folder, "data", ".revnet-unpack-abcdef");
    const other = path.join(folder, "data", ".extract-mine");
    for (const one of [left, other]) {
      await mkdir(one, { recursive: true });
      await utimes(one, 0, 0);
    }
    await downloadDataset("cifar-10", options());
    expect(await readdir(path.join(folder, "data")))
      .to.include(".extract-mine")
      .and.not.include(".revnet-unpack-abcdef");
  });

  it("can be aborted, and keep what is there", async () => {
    const controller = new AbortController();
    answer = (_, response) => {
      response.writeHead(200, { "content-length": archive.length });
      response.write(archive.subarray(0, 120), () => setTimeout(() => controller.abort(), 100));
    };
    await rejection(downloadDataset("cifar-10", { ...options(), signal: controller.signal }), "ERR_ABORTED");
    expect(await readFile(part())).to.deep.equal(archive.subarray(0, 120));
  });

  it("write nothing outside the folder, whatever the archive holds", async () => {
    const good = archive;
    try {
      await writeFile(path.join(folder, "test_batch.bin"), "stray");
      await tar.c(
        { gzip: true, file: path.join(folder, "bad.tar.gz"), cwd: path.join(folder, "cifar-10-batches-bin"), preservePaths: true },
        ["../test_batch.bin"],
      );
      archive = await readFile(path.join(folder, "bad.tar.gz"));
      await rejection(downloadDataset("cifar-10", options()), "ERR_INVALID_DATA");
      expect((await readdir(options().dataDir)).filter((name) => !name.endsWith(".part"))).to.deep.equal([]);
    } finally {
      archive = good;
    }
  });
});
