// The menu of a session: its actions, each with a line of description.
import { fitting, perform } from "/page/actions.js";
import { make } from "/page/show.js";

const menu = { open: null };

function close(focus) {
  if (!menu.open) return;
  const { list, button } = menu.open;
  menu.open = null;
  list.remove();
  button.setAttribute("aria-expanded", "false");
  if (focus) button.focus();
}

function move(list, step) {
  const rows = [...list.querySelectorAll("button")];
  const next = (rows.indexOf(document.activeElement) + step + rows.length) % rows.length;
  rows[next].focus();
}

function open(button, instance) {
  close(false);
  const list = make(
    "div",
    { name: "menu", role: "menu", popover: "manual", "aria-label": "Actions for " + instance.id },
    ...fitting(instance).map((action) =>
      make(
        "button",
        {
          type: "button",
          role: "menuitem",
          name: action.harsh ? "menu-row danger-quiet" : "menu-row",
          "data-do": action.key,
          click: () => {
            close(true);
            perform(button, action, instance.id);
          },
        },
        make("span", { name: "menu-label", text: action.label }),
        make("span", { name: "soft small", text: action.line }),
      ),
    ),
  );
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close(true);
    else if (event.key === "ArrowDown") move(list, 1);
    else if (event.key === "ArrowUp") move(list, -1);
    else if (event.key === "Tab") close(false);
    else return;
    if (event.key !== "Tab") event.preventDefault();
  });
  button.after(list);
  // Above everything else, at a fixed place: no other row covers it, no scrolling part cuts it off.
  list.showPopover();
  const box = button.getBoundingClientRect();
  const below = box.bottom + list.offsetHeight <= innerHeight || box.top < list.offsetHeight;
  list.style.top =
    Math.max(
      8,
      below ? Math.min(box.bottom, innerHeight - list.offsetHeight - 8) : box.top - list.offsetHeight,
    ) + "px";
  list.style.left = Math.max(8, box.right - list.offsetWidth) + "px";
  button.setAttribute("aria-expanded", "true");
  menu.open = { list, button };
  list.querySelector("button").focus();
}

addEventListener(
  "scroll",
  (event) => {
    if (menu.open && event.target === document) close(false);
  },
  { passive: true },
);
addEventListener("click", (event) => {
  if (menu.open && !menu.open.list.contains(event.target) && !menu.open.button.contains(event.target))
    close(false);
});

// `current`: gives the session as it is when the menu opens.
export function menuButton(id, current) {
  const button = make("button", {
    type: "button",
    name: "quiet dots",
    text: "⋯",
    "aria-label": "Actions for " + id,
    "aria-haspopup": "menu",
    "aria-expanded": "false",
  });
  button.addEventListener("click", () => {
    if (menu.open && menu.open.button === button) close(true);
    else if (current()) open(button, current());
  });
  return make("div", { name: "menu-place" }, button);
}
