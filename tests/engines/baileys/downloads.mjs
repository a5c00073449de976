// Files from a media server of every kind, on the client's own downloads. Argument: none.
import assert from "node:assert/strict";
import { createCipheriv, createHash, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { Downloads, addressOf } from "../../../agent/engines/baileys/client/downloads.mjs";

const plain = randomBytes(500_001);
const key = randomBytes(32);

function sealedAs(kind, content = plain) {
  const keys = Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), `WhatsApp ${kind} Keys`, 112));
  const cipher = createCipheriv("aes-256-cbc", keys.subarray(16, 48), keys.subarray(0, 16));
  const body = Buffer.concat([cipher.update(content), cipher.final()]);
  const mac = createHmac("sha256", keys.subarray(48, 80)).update(keys.subarray(0, 16)).update(body).digest();
  return Buffer.concat([body, mac.subarray(0, 10)]);
}

const file = sealedAs("Image");
const changed = Buffer.from(file);
changed[1000] ^= 1;
let asked = [];
let answers = {};
const server = createServer((request, response) => {
  asked.push(request.url);
  const answer = answers[request.url];
  if (answer === undefined) response.writeHead(404).end();
  else if (typeof answer === "function") answer(response);
  else response.end(answer);
});
await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
const base = `http://127.0.0.1:${server.address().port}`;
const sealed = createHash("sha256").update(file).digest("base64");
const told = (more = {}, type = "image") => ({ type, size: plain.length, media: { key: key.toString("base64"), path: "/v/1", sealed, ...more } });
const never = () => assert.fail("the phone was asked");

async function fetched(downloads, order, again = never) {
  const { download } = await downloads.open(order, undefined, again);
  const parts = [];
  for (let done = false; !done; ) {
    const part = await downloads.next(download);
    parts.push(Buffer.from(part.data, "base64"));
    assert.ok(part.data.length < 400 << 10);
    done = part.done;
  }
  return Buffer.concat(parts);
}
const refused = (code, order, again) => assert.rejects(fetched(new Downloads(base), order, again), { code });

// As it is, in pieces.
answers = { "/v/1": file };
assert.ok((await fetched(new Downloads(base), told())).equals(plain));
for (const [type, kind] of [["video", "Video"], ["audio", "Audio"], ["document", "Document"], ["sticker", "Image"]]) {
  answers["/v/1"] = sealedAs(kind);
  assert.ok((await fetched(new Downloads(base), told({ sealed: undefined }, type))).equals(plain));
}

// Damaged in each way: nothing that passes for the file.
answers = { "/v/1": changed };
await refused("media_damaged", told());
await refused("media_damaged", told({ sealed: undefined }));
answers = { "/v/1": file.subarray(0, 100_000) };
await refused("media_damaged", told({ sealed: undefined }));
answers = { "/v/1": file.subarray(0, 5) };
await refused("media_damaged", told({ sealed: undefined }));
answers = { "/v/1": (response) => response.writeHead(200, { "content-length": file.length }).write(file.subarray(0, 9000), () => response.destroy()) };
await refused("media_unreachable", told());
answers = { "/v/1": sealedAs("Image", Buffer.concat([plain, plain])) };
await refused("media_damaged", told({ sealed: undefined }));
let sent = 0;
const endless = (response) => {
  const more = () => {
    if (response.destroyed) return;
    sent += 65536;
    response.write(Buffer.alloc(65536), () => setImmediate(more));
  };
  more();
};
answers = { "/v/1": endless };
await refused("media_damaged", told({ sealed: undefined }));
assert.ok(sent < 8 << 20, `${sent} bytes of a file of ${plain.length} were taken`);
answers = { "/v/1": file };
await refused("media_damaged", told({ sealed: createHash("sha256").update(plain).digest("base64") }));
await refused("no_media", told({ key: "AAAA" }));
await refused("no_media", told({}, "location"));

// Gone: the phone gives it again, at another path; or it does not.
answers = { "/v/2": file };
assert.ok((await fetched(new Downloads(base), told(), async () => "/v/2")).equals(plain));
await refused("media_gone", told(), async () => "/v/3");
const no = Object.assign(new Error("no"), { code: "media_gone" });
await refused("media_gone", told(), () => Promise.reject(no));
answers = { "/v/1": (response) => response.writeHead(500).end() };
await refused("media_unreachable", told());

// Too slow: a head without an end, a byte now and then; none of them is ever silent.
async function tooSlow(answer) {
  answers = { "/v/1": answer };
  const begun = Date.now();
  await assert.rejects(fetched(new Downloads(base, 400), told()), { code: "media_unreachable" });
  assert.ok(Date.now() - begun < 10_000, "it was given up late");
}
const dripping = (socket, text) => {
  const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write(text)), 50);
  timer.unref();
};
await tooSlow(({ socket }) => dripping(socket, "HTTP/1.1 100 Continue\r\n\r\n"));
await tooSlow(({ socket }) => socket.write("HTTP/1.1 200 OK\r\nX: ") && dripping(socket, "x"));
await tooSlow((response) => dripping(response.writeHead(200, { "content-length": file.length }), "x"));
// A file that comes at once is not slow because its worker is.
answers = { "/v/1": file };
const patient = new Downloads(base, 400);
const { download: slowly } = await patient.open(told(), undefined, never);
for (let done = false; !done; ) {
  await new Promise((waited) => setTimeout(waited, 200));
  ({ done } = await patient.next(slowly));
}

// Where a contact would lead it.
for (const status of [301, 302, 307, 308]) {
  asked = [];
  answers = { "/v/1": (response) => response.writeHead(status, { location: `${base}/inside` }).end(), "/inside": file };
  await refused("media_refused", told());
  assert.deepEqual(asked, ["/v/1"]);
}
asked = [];
const foreign = ["@127.0.0.1/x", "//127.0.0.1/x", "/\\127.0.0.1/x", "http://127.0.0.1:1/x", "https://169.254.169.254/latest", ".evil.example/x", "file:///etc/passwd", "http://[::1]/", "//user@h/x"];
for (const path of foreign) {
  const { origin } = new URL(base);
  try {
    assert.equal(addressOf({ path }, base).origin, origin, path); // it stays a path of that server
  } catch (error) {
    assert.equal(error.code, "media_refused", path);
  }
  try {
    assert.equal(addressOf({ path }).origin, "https://mmg.whatsapp.net", path);
  } catch (error) {
    assert.equal(error.code, "media_refused", path);
  }
}
assert.equal(asked.length, 0);
const urls = ["http://mmg.whatsapp.net/x", "https://mmg.whatsapp.net:8443/x", "https://whatsapp.net.evil.example/x", "https://evilwhatsapp.net/x", "https://u:p@mmg.whatsapp.net/x", "https://127.0.0.1/x", "https://metadata.google.internal/x", "gopher://mmg.whatsapp.net/", "", undefined];
for (const url of urls) assert.throws(() => addressOf({ url }), { code: "media_refused" }, url);
assert.equal(addressOf({ url: "https://media-gru1-1.cdn.whatsapp.net/v/1?a=b" }).href, "https://media-gru1-1.cdn.whatsapp.net/v/1?a=b");
assert.equal(addressOf({ path: "/v/1?ccb=1&oh=2", url: "https://127.0.0.1/" }).href, "https://mmg.whatsapp.net/v/1?ccb=1&oh=2");
assert.throws(() => addressOf({ url: "https://mmg.whatsapp.net/x" }, base), { code: "media_refused" });

// Some at a time, and none stays open when its worker forgets it.
answers = { "/v/1": (response) => response.writeHead(200, { "content-length": file.length }).write(file.subarray(0, 9000)) };
const downloads = new Downloads(base);
const names = [];
for (let count = 0; count < 4; count += 1) names.push((await downloads.open(told(), undefined, never)).download);
await assert.rejects(downloads.open(told(), undefined, never), { code: "busy" });
downloads.close(names[0]);
await downloads.open(told(), undefined, never);
downloads.end();
await assert.rejects(downloads.next(names[1]), { code: "media_unreachable" });
await downloads.open(told(), undefined, never);
downloads.end();
server.close();
server.closeAllConnections();
