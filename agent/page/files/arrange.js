// Puts children in this order and moves as few as possible: a reader's focus stays.
export function arrange(list, wanted) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const keep = new Set(wanted);
  for (const item of [...list.children]) if (!keep.has(item)) item.remove();
  wanted.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
  });
  if (focused && focused !== document.activeElement && list.contains(focused)) focused.focus();
}
