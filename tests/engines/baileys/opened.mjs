// Each script of the client's parts begins with this: arguments PACKAGES FOLDER, and its own.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

export const [packages, folder, ...more] = process.argv.slice(2);
export const client = (name) => import(new URL(`../../../agent/engines/baileys/client/${name}`, import.meta.url));
export const { load } = await import(pathToFileURL(join(packages, "load.mjs")));
export const lib = await load("baileys");
