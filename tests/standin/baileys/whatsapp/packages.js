// Parts of these packages by `require`: an `import` reads CommonJS twice, to know its names
// before it runs, and WhatsApp's messages are five megabytes of it.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

export const curve = require('libsignal/src/curve.js');
export const libsignal = require('libsignal');
export const signal = require('baileys-6/WASignalGroup/index.js');
export const { proto } = require('baileys-6/WAProto/index.js');
