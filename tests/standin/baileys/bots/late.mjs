// The plain bot, which loads its library when there is a file `go` in its folder. With the argument
// `waits` its main thread waits until then for what does not come, without processor time.
import { existsSync } from "node:fs";

if (process.argv[2] === "waits" && !existsSync("go")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
while (!existsSync("go")) await new Promise((then) => setTimeout(then, 50));
await import("./plain.mjs");
