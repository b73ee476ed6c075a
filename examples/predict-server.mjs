// Classifies images over HTTP, on this machine only:
//   node examples/predict-server.mjs MODEL.safetensors [PORT]
//   curl --data-binary @photo.jpg http://127.0.0.1:8000/
import { createServer } from "node:http";
import { loadNetwork, RevNetError } from "revnet";

const [file, port = "8000"] = process.argv.slice(2);
if (file === undefined) throw new Error("usage: node examples/predict-server.mjs MODEL.safetensors [PORT]");
const network = await loadNetwork(file);
const MAX_BYTES = 20 * 2 ** 20;

async function receive(request) {
  const parts = [];
  let received = 0;
  for await (const part of request) {
    received += part.length;
    if (received > MAX_BYTES) throw new RevNetError("ERR_INVALID_DATA", `an image may have at most ${MAX_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

const server = createServer(async (request, response) => {
  const answer = (status, value) =>
    response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(value)}\n`);
  if (request.method !== "POST") return answer(405, { error: "POST the bytes of an image" });
  try {
    // Decoding and the network have threads of their own: other requests are answered meanwhile.
    const probabilities = [...(await network.predict([await receive(request)]))];
    const best = probabilities.indexOf(Math.max(...probabilities));
    answer(200, { class: network.classNames?.[best] ?? best, probability: probabilities[best] });
  } catch (error) {
    answer(error.code === "ERR_INVALID_DATA" ? 400 : 500, { error: error.message });
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));

process.once("SIGTERM", () => {
  server.close();
  network.dispose();
});
