"use strict";
// Before anything is drawn, so that no wrong colours flash up.
(function () {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const order = ["system", "light", "dark"];
  let chosen = "system";
  try {
    chosen = localStorage.getItem("wa-agent-theme") || chosen;
  } catch {
    /* storage is off */
  }

  function apply() {
    const dark = chosen === "dark" || (chosen !== "light" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) button.textContent = order.includes(chosen) ? chosen : order[0];
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", ({ target }) => {
    if (/** @type {HTMLElement} */ (target).id !== "theme") return;
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    apply();
    try {
      localStorage.setItem("wa-agent-theme", chosen);
    } catch {
      /* holds for this page */
    }
  });
})();
