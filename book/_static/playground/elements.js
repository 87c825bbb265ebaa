/** Small helpers for the page: elements, numbers as text, and what the reader's system asks for. */

/** An element with attributes, listeners (`onclick`, …) and children; a false attribute is left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) {
      made.addEventListener(key.slice(2), value);
    } else if (value !== false && value !== null) {
      made.setAttribute(key, value === true ? "" : value);
    }
  }
  made.append(...children);
  return made;
}

/** A group of radio buttons that look like one row of keys. `choices` is an array of [value, label]. */
export function choice(legend, name, choices, chosen, onchange) {
  const keys = choices.map(([value, label]) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name, value, checked: value === chosen, autocomplete: "off", onchange }),
      element("span", {}, label),
    ),
  );
  const group = element("div", { class: "playground-keys" }, ...keys);
  return element("fieldset", {}, element("legend", {}, legend), group);
}

/** A size in megabytes, as the button shows it. */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Milliseconds, or seconds once they are many. */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** Whether the reader's system asks for less motion. */
export function wantsLessMotion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
