/**
 * Serves a live page to this machine's browsers and sends them what has changed. Other users of the machine lack the token, other
 * sites in the same browser are refused by Host and Origin, and other machines do not reach the loopback interface.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { RevNetError } from "../errors.js";
import { printable } from "../text.js";
import type { Content, Part } from "./content.js";
import { html, pageJson } from "./html.js";
import { page } from "./page.js";

const ADDRESS = "127.0.0.1";
/** Between two updates; longer where making them takes long, so that at most a twentieth of the time goes into them. */
const UPDATE_MILLISECONDS = 1000;
const SHARE = 20;
/** What a browser has to read the last update. */
const GOODBYE_MILLISECONDS = 2000;
/** What a connection has to show the token, from its beginning to the end of its request. */
const STRANGER_MILLISECONDS = 5000;
/** Connections that have not shown the token: a further one takes the place of the oldest, so that none is kept out by the others. */
const MAX_STRANGERS = 32;
/** Streams of updates: beyond them the one that has not been read for the longest ends, and its browser asks again. */
const MAX_STREAMS = 64;
/** After which a stream that nobody reads ends. */
const UNREAD_MILLISECONDS = 60_000;
const LIMITS = {
  headersTimeout: STRANGER_MILLISECONDS,
  requestTimeout: STRANGER_MILLISECONDS,
  keepAliveTimeout: STRANGER_MILLISECONDS,
  connectionsCheckingInterval: 1000,
  maxHeaderSize: 16_384,
};
const HEADERS = {
  "Cache-Control": "no-store",
  // The page forbids itself everything else (page.ts); this cannot be said in the page.
  "Content-Security-Policy": "frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/** Which text a part has: what a browser already shows is not replaced. */
const version = ({ html }: Part) => createHash("sha256").update(html.source).digest("hex").slice(0, 16);
const digest = (text: string) => createHash("sha256").update(text).digest();

export class LiveServer {
  readonly #server: Server;
  readonly #token = randomBytes(16).toString("hex");
  readonly #title: string;
  readonly #content: () => Content;
  /** And when each was last seen to be read. */
  readonly #streams = new Map<ServerResponse, number>();
  /** Connections that have not shown the token, the oldest first, and what ends each. */
  readonly #strangers = new Map<Socket, NodeJS.Timeout>();
  #port = 0;
  #timer: NodeJS.Timeout | undefined;
  #pause = UPDATE_MILLISECONDS;

  private constructor(title: string, content: () => Content) {
    this.#title = title;
    this.#content = content;
    this.#server = createServer(LIMITS, (request, response) => {
      response.on("error", () => {}); // a browser that left
      this.#answer(request, response).catch((error: Error) => refuse(response, 500, error.message));
    });
    this.#server.on("connection", (socket) => this.#meet(socket));
  }

  #meet(socket: Socket): void {
    const [oldest] = this.#strangers.keys();
    if (oldest && this.#strangers.size >= MAX_STRANGERS) oldest.destroy();
    this.#strangers.set(
      socket,
      setTimeout(() => socket.destroy(), STRANGER_MILLISECONDS),
    );
    socket.once("close", () => this.#trust(socket));
  }

  /** It has shown the token, or is gone. */
  #trust(socket: Socket): void {
    clearTimeout(this.#strangers.get(socket));
    this.#strangers.delete(socket);
  }

  /** @param port 0: one that is free. @throws RevNetError ERR_UI where it cannot be had */
  static async open(port: number, title: string, content: () => Content): Promise<LiveServer> {
    const live = new LiveServer(title, content);
    try {
      live.#server.listen(port, ADDRESS);
      await once(live.#server, "listening");
    } catch (error) {
      throw new RevNetError("ERR_UI", `ui: the live page cannot be served at ${ADDRESS}:${port}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    live.#port = (live.#server.address() as AddressInfo).port;
    // What fails later fails for one connection.
    live.#server.on("error", () => {});
    return live;
  }

  get url(): string {
    return `http://${ADDRESS}:${this.#port}/?token=${this.#token}`;
  }

  /** The content is another one: whoever looks gets it soon. */
  changed(): void {
    if (this.#timer || this.#streams.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const start = performance.now();
      this.#send("update");
      this.#pause = Math.max(UPDATE_MILLISECONDS, SHARE * (performance.now() - start));
    }, this.#pause);
  }

  /** Sends the content for the last time and gives the port back. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const closed = once(this.#server, "close");
    this.#server.close();
    const sent = [...this.#streams.keys()].map((stream) => once(stream, "close"));
    this.#send("end");
    for (const stream of this.#streams.keys()) stream.end();
    const patience = new AbortController();
    await Promise.race([Promise.all(sent), sleep(GOODBYE_MILLISECONDS, undefined, patience)]);
    patience.abort();
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const hosts = [ADDRESS, "localhost"].flatMap((name) => [`${name}:${this.#port}`, ...(this.#port === 80 ? [name] : [])]);
    const { host = "", origin } = request.headers;
    if (!hosts.includes(host)) return refuse(response, 403, "this page is for the machine that it runs on");
    if (origin !== undefined && !hosts.some((known) => origin === `http://${known}`))
      return refuse(response, 403, "other sites may not read this page");
    const [target, base] = [request.url ?? "", `http://${host}`];
    const url = URL.canParse(target, base) ? new URL(target, base) : undefined;
    if (!url || !timingSafeEqual(digest(url.searchParams.get("token") ?? ""), digest(this.#token)))
      return refuse(response, 403, "the token is missing or not this run's: open the address that the run has printed");
    this.#trust(request.socket);
    if (request.method !== "GET") return refuse(response, 405, "GET is all there is");
    if (url.pathname === "/events") return this.#listen(response);
    if (url.pathname !== "/") return refuse(response, 404, "there is nothing here");
    const { parts, charts } = this.#content();
    const wrapped = parts.map((part) => html`<div data-part="${part.id}" data-version="${version(part)}">${part.html}</div>\n`);
    const text = await page(this.#title, wrapped, charts, true);
    response.writeHead(200, { ...HEADERS, "Content-Type": "text/html; charset=utf-8" }).end(text);
  }

  #listen(response: ServerResponse): void {
    const [longestUnread] = [...this.#streams].sort(([, a], [, b]) => a - b);
    if (longestUnread && this.#streams.size >= MAX_STREAMS) longestUnread[0].destroy();
    response.writeHead(200, { ...HEADERS, "Content-Type": "text/event-stream" });
    this.#streams.set(response, performance.now());
    response.on("close", () => this.#streams.delete(response));
    response.on("drain", () => this.#streams.has(response) && this.#streams.set(response, performance.now()));
    // What changed since the page was made.
    response.write(this.#message("update"));
  }

  /** As bytes, which the streams that wait for them share. */
  #message(type: "update" | "end"): Buffer {
    const { parts, charts } = this.#content();
    const shown = parts.map((part) => ({ id: part.id, version: version(part), html: part.html.source }));
    return Buffer.from(`event: ${type}\ndata: {"parts":${JSON.stringify(shown)},"charts":${pageJson(charts)}}\n\n`);
  }

  /** Browsers that have yet to read the last update are left out, and after a while they have left. */
  #send(type: "update" | "end"): void {
    const now = performance.now();
    const waiting: ServerResponse[] = [];
    for (const [stream, read] of this.#streams)
      if (!stream.writableNeedDrain) {
        this.#streams.set(stream, now);
        waiting.push(stream);
      } else if (type === "end") waiting.push(stream);
      else if (now - read > UNREAD_MILLISECONDS) stream.destroy();
    if (waiting.length === 0) return;
    const message = this.#message(type);
    for (const stream of waiting) stream.write(message);
  }
}

function refuse(response: ServerResponse, status: number, reason: string): void {
  if (response.headersSent) response.destroy();
  else
    response
      .writeHead(status, { ...HEADERS, "Content-Type": "text/plain; charset=utf-8", Connection: "close" })
      .end(`${printable(reason)}\n`);
}
