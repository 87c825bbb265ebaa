/** The settings of a form in the page's address, so that a link shows others the same digits. */

/** In the address, fields go by the names that the page shows. */
const SHOWN = { seed: "noise", method: "solver" };

/**
 * Set a form's fields from the address; what is not allowed there is left as it is.
 *
 * @param {HTMLFormElement} form
 * @param {Record<string, string[]>} allowed values of each field
 * @returns {Record<string, string>} the fields' values before, which an address need not name
 */
export function readAddress(form, allowed) {
  const usual = Object.fromEntries(new FormData(form));
  const given = new URLSearchParams(location.search);
  for (const [field, values] of Object.entries(allowed)) {
    const value = given.get(SHOWN[field] ?? field);
    if (values.includes(value)) {
      form.elements[field].value = value;
    }
  }
  return usual;
}

/**
 * Write a form's fields into the address, without a new entry in the browser's history.
 *
 * @param {HTMLFormElement} form
 * @param {Record<string, string>} usual values that are left out
 */
export function writeAddress(form, usual) {
  const address = new URL(location.href);
  for (const [field, value] of new FormData(form)) {
    const name = SHOWN[field] ?? field;
    if (value === usual[field]) {
      address.searchParams.delete(name);
    } else {
      address.searchParams.set(name, value);
    }
  }
  history.replaceState(history.state, "", address);
}
