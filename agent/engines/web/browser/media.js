// Files of messages: the page loads and decrypts one, as for a person who opens it, and asks the
// phone again for a lost one; the worker takes it in pieces. Runs after observer.js.
const __waMedia = (() => {
  const AT_ONCE = 4, KEPT = 120000;
  const files = new Map();
  let last = 0;
  const file_of = (name) => {
    const file = files.get(name);
    if (!file) refuse('file_lost', 'the page does not load this file any more');
    file.at = performance.now();
    return file;
  };
  const tried = async (work) => {
    try { return { ok: await work() } } catch (error) {
      return { error: text(error && (error.code || error.name)).slice(0, 64),
        message: text(error && error.message).slice(0, 300) };
    }
  };

  const begin = (key) => tried(async () => {
    // A worker that is gone, or forgets, leaves nothing in the page's memory.
    const now = performance.now();
    for (const [name, each] of files) if (now - each.at > KEPT) files.delete(name);
    if (files.size >= AT_ONCE) refuse('busy', 'too many files at once');
    const name = text((last += 1)), file = { at: now, blob: null, error: null };
    file.loaded = WPP.chat.downloadMedia(key).then((blob) => { file.blob = blob },
      (error) => { file.error = error || new Error('media_not_found') });
    files.set(name, file);
    return { name };
  });
  // The size of the file once it is loaded; null if it is not after `seconds`.
  const wait = (name, seconds) => tried(async () => {
    const file = file_of(name);
    await Promise.race([file.loaded, new Promise((late) => setTimeout(late, seconds * 1000))]);
    if (file.error) { files.delete(name); throw file.error }
    return { size: file.blob ? file.blob.size : null };
  });
  const part = (name, offset, length) => tried(() => new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done({ data: text(reader.result).split(',')[1] || '' });
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file_of(name).blob.slice(offset, offset + length));
  }));
  const end = (name) => { files.delete(name); return true };
  return { begin, wait, part, end };
})();
__waAgent.media = __waMedia;
