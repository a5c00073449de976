// Sessions of one client on a disk that answers one of them only: arguments FOLDER PIPE HELD.
// HELD operations stand still, each the opening of a pipe that nobody writes to; then the store of another
// session keeps its credentials. Prints "stored" when they are on the disk.
import { open } from "node:fs";

const [folder, pipe, held] = process.argv.slice(2);
const { Store } = await import(new URL("../../../agent/engines/baileys/client/store.mjs", import.meta.url));

for (let number = 0; number < Number(held); number += 1) open(pipe, "r", () => {});
const plain = (_, value) => value;
const lib = { initAuthCreds: () => ({ registrationId: 7 }), BufferJSON: { replacer: plain, reviver: plain } };
const store = new Store(folder, lib, (error) => console.log(error.code));
const { creds } = await store.open(false);
await store.saveCreds(creds);
console.log("stored");
