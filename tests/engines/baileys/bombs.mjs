// A history that inflates to more than a part of it may hold, inside a notification and as it comes
// from a media server; and a frame that is large for a good reason: arguments NODE_MODULES FILE.
import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { join } from "node:path";
import { boundInflation } from "../../../agent/engines/baileys/client/inflate.mjs";
import { createInflate, deflateSync } from "node:zlib";

const [modules, file] = process.argv.slice(2);
boundInflation();
const library = (name) => import(join(modules, "baileys/lib", name));
const { downloadAndProcessHistorySyncNotification: read } = await library("Utils/history.js");

await assert.rejects(read({ initialHistBootstrapInlinePayload: readFileSync(file) }, {}), /frame of more than 8 MiB/);
const chunks = [];
const inflater = createInflate();
inflater.on("data", (chunk) => chunks.push(chunk));
await assert.rejects(pipeline(createReadStream(file), inflater), /part of the history of more than 64 MiB/);

const member = (_, n) => ({ tag: "participant", attrs: { jid: `${123456789000000 + n}@lid`, phone_number: `${5511900000000 + n}@s.whatsapp.net` } });
const { encodeBinaryNode, decodeBinaryNode } = await library("WABinary/index.js");
const group = encodeBinaryNode({ tag: "group", attrs: { id: "120363000000000001" }, content: Array.from({ length: 1000 }, member) }).subarray(1);
const GROUPS = [248, 2, 3, 248, 200]; // a node with a list of 200
const frame = Buffer.concat([Buffer.from([2]), deflateSync(Buffer.concat([Buffer.from(GROUPS), ...Array(200).fill(group)]))]);
const { content } = await decodeBinaryNode(frame);
assert.equal(content.length, 200);
assert.equal(content[199].content[999].attrs.jid, "123456789000999@lid");
