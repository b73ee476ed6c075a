// Classifies images over HTTP, on this machine only:
//   node examples/predict-server.mjs MODEL.safetensors [PORT]
//   curl --data-binary @photo.jpg http://127.0.0.1:8000/
import { createServer } from "node:http";
import { loadNetwork } from "revnet";
import sharp from "sharp";

const [file, port = "8000"] = process.argv.slice(2);
if (file === undefined) throw new Error("usage: node examples/predict-server.mjs MODEL.safetensors [PORT]");
const network = await loadNetwork(file);
const [height, width, channels] = network.spec.input;
const MAX_BYTES = 20 * 2 ** 20;

/**
 * Bytes of a JPEG, PNG or WebP file to what the network reads, as rows of pixels: upright, resized so that it just covers 8/7 of the
 * network's input, of which the middle is taken, as `revnet predict` does.
 */
async function decode(bytes) {
  const [w, h] = [width, height].map((edge) => Math.round((8 / 7) * edge));
  const image = sharp(bytes)
    .rotate()
    .flatten({ background: "white" })
    .resize(w, h, { fit: "cover" })
    .extract({ left: (w - width) >> 1, top: (h - height) >> 1, width, height });
  return (channels === 1 ? image.toColourspace("b-w") : image.toColourspace("srgb")).raw().toBuffer();
}

async function receive(request) {
  const parts = [];
  let received = 0;
  for await (const part of request) {
    received += part.length;
    if (received > MAX_BYTES) throw new Error(`an image may have at most ${MAX_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

const server = createServer(async (request, response) => {
  const answer = (status, value) =>
    response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(value)}\n`);
  if (request.method !== "POST") return answer(405, { error: "POST the bytes of an image" });
  let pixels;
  try {
    pixels = await decode(await receive(request));
  } catch (error) {
    return answer(400, { error: error.message });
  }
  try {
    // Runs on the network's thread: other requests are answered meanwhile.
    const probabilities = [...(await network.predict(new Uint8Array(pixels)))];
    const best = probabilities.indexOf(Math.max(...probabilities));
    answer(200, { class: network.classNames?.[best] ?? best, probability: probabilities[best] });
  } catch (error) {
    answer(500, { error: error.message });
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));

process.once("SIGTERM", () => {
  server.close();
  network.dispose();
});
