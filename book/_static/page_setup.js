/* Runs before every other script of a page, so that the theme, MathJax and the widgets' manager get along. */
"use strict";

/* The theme's Font Awesome would replace the icons inside the widgets' Play button while the manager still holds on to
   them, and the exception stops the button. It replaces what is in the page when it loads, and leaves the rest alone. */
window.FontAwesomeConfig = { observeMutations: false };

/* The manager loads its icon fonts relative to the addresses of its own modules, which require.js has to be told. */
{
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
