/* Runs before every other script of a page, so that the theme, MathJax and the widgets' manager get along. */
"use strict";

/* The manager loads its icon fonts relative to the addresses of its own modules, which require.js has to be told. */
if (document.currentScript.dataset.manager) {
  const { manager } = document.currentScript.dataset;
  const folder = new URL(manager, document.currentScript.src).href;
  window.require = {
    paths: {
      "@jupyter-widgets/base": `${folder}/dist/index`,
      "@jupyter-widgets/controls": `${folder}/dist/index`,
      "@jupyter-widgets/html-manager": `${folder}/dist/index`,
      "@jupyter-widgets/html-manager/dist": `${folder}/dist`,
    },
  };
}

/* The manager typesets labels through MathJax 2's queue; the page has MathJax 3. */
document.addEventListener("DOMContentLoaded", () => {
  const mathjax = window.MathJax;
  if (!mathjax || mathjax.Hub) return;
  const typeset = ([, , element]) => mathjax.startup.promise.then(() => mathjax.typesetPromise([element]));
  mathjax.Hub = { Queue: (...calls) => Promise.all(calls.filter(Array.isArray).map(typeset)) };
});

/* Accessible names: buttons of the theme and folded cells have a label that is not their visible text, bibliographies are
   lists whose entries are no list items, and the sidebar is no landmark. */
document.addEventListener("DOMContentLoaded", () => {
  for (const icon of document.querySelectorAll(".theme-switch")) {
    icon.removeAttribute("title");
    icon.setAttribute("aria-hidden", "true");
  }
  for (const button of document.querySelectorAll(".search-button-field")) {
    button.setAttribute("aria-label", button.textContent.trim().replace(/\s+/g, " "));
  }
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");
  for (const [marked, attribute] of [
    ["summary[aria-label]", "aria-label"],
    [".citation-list[role=list]", "role"],
    ["[role=doc-biblioentry]", "role"],
  ]) {
    for (const one of document.querySelectorAll(marked)) one.removeAttribute(attribute);
  }
  for (const toggle of document.querySelectorAll("summary > .toctree-toggle")) {
    toggle.parentElement.setAttribute("aria-label", "Pages of this chapter");
  }
});

/* Accessible names and values for the sliders over t, once the manager has put them into the page: the manager gives the
   parts no names, and as value the number of the frame. */
{
  const keep = (element, attribute, wanted, watched) => {
    const set = () => {
      if (element.getAttribute(attribute) !== wanted()) element.setAttribute(attribute, wanted());
    };
    const observer = new MutationObserver(set);
    for (const one of watched) observer.observe(one, { attributes: true, characterData: true, childList: true });
    set();
  };
  const name = (box) => {
    const handle = box.querySelector("[role=slider]");
    const [play, stop] = box.querySelectorAll(".widget-play button");
    if (!handle || !play || handle.hasAttribute("aria-label")) return;
    const readout = box.querySelector(".widget-readout");
    const label = box.querySelector(".widget-slider .widget-label").textContent;
    handle.setAttribute("aria-label", label);
    keep(handle, "aria-valuetext", () => readout.textContent, [handle, readout]);
    readout.tabIndex = -1; /* it can be edited, to no effect */
    const icon = play.querySelector("i");
    const action = () => (icon.classList.contains("fa-pause") ? "Pause" : "Play");
    for (const attribute of ["aria-label", "title"]) {
      keep(play, attribute, action, [icon]);
      stop.setAttribute(attribute, "Back to the start");
    }
  };
  const all = () => document.querySelectorAll(".fm-time-slider").forEach(name);
  document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver(all).observe(document.body, { childList: true, subtree: true });
  });
}

/* One switch that opens or closes all folded code of the page. */
document.addEventListener("DOMContentLoaded", () => {
  const folds = [...document.querySelectorAll(".bd-article .cell > details.hide")];
  const title = document.querySelector(".bd-article h1");
  if (folds.length === 0 || !title) return;
  const button = document.createElement("button");
  button.className = "fm-code-switch";
  button.type = "button";
  const label = () => {
    const open = folds.every((fold) => fold.open);
    button.textContent = open ? "Hide the code of figures" : "Show all code";
    button.setAttribute("aria-pressed", String(open));
  };
  button.addEventListener("click", () => {
    const open = !folds.every((fold) => fold.open);
    for (const fold of folds) fold.open = open;
    label();
  });
  for (const fold of folds) fold.addEventListener("toggle", label);
  label();
  title.after(button);
});
