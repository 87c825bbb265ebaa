/* Starts the playground, or says why it cannot run and shows the recorded film instead. No module: where the page is
   opened as a file, or the server sends scripts as text, browsers load no module. */
{
  const here = document.currentScript.src;
  const SERVE = "In the book's folder, python3 run.py serve starts a server that works, and opens the book.";

  const lacking = () => {
    if (location.protocol === "file:") {
      return `This page was opened as a file, and browsers load no networks for files. ${SERVE}`;
    }
    if (typeof WebAssembly === "undefined") return "This browser has no WebAssembly, or it is switched off.";
    if (typeof Worker === "undefined") return "This browser has no web workers.";
    return null;
  };

  /* Why a module, or one that it imports, did not load: a browser's own message does not say. */
  const whyNot = async (module, seen = new Set()) => {
    if (seen.has(module)) return null;
    seen.add(module);
    const response = await fetch(module).catch(() => null);
    if (!response) return `The file ${module} could not be reached.`;
    if (!response.ok) return `The file ${module} could not be fetched: the server answered ${response.status}.`;
    const type = response.headers.get("content-type") ?? "";
    if (!/javascript/.test(type)) {
      return `This server sends scripts as ${type || "files of no type"}, and browsers run no such modules. ${SERVE}`;
    }
    for (const [, name] of (await response.text()).matchAll(/from "(\.\/[\w.]+)"/g)) {
      const why = await whyNot(new URL(name, module).href, seen);
      if (why) return why;
    }
    return null;
  };

  /* Say in a section why it does not run; `retry` is what the button does, where trying again makes sense. */
  const explain = (section, why, retry) => {
    const place = section.querySelector("[data-part=why]");
    const live = section.querySelector("[data-part=live]");
    const said = document.createElement("p");
    const lead = document.createElement("strong");
    lead.textContent = "The playground does not run here. ";
    said.append(lead, why);
    place.replaceChildren(said);
    if (retry) {
      const again = document.createElement("button");
      again.type = "button";
      again.textContent = "Try again";
      again.addEventListener("click", () => {
        place.hidden = true;
        live.hidden = false;
        retry();
      });
      place.append(again);
    }
    if (section.dataset.film) {
      const film = document.createElement("img");
      film.src = section.dataset.film;
      film.alt = section.dataset.filmText;
      const note = document.createElement("p");
      note.textContent = "This is what it would show, recorded:";
      place.append(note, film);
    }
    live.hidden = true;
    place.hidden = false;
  };

  const start = async () => {
    const sections = [...document.querySelectorAll("[data-playground]")];
    const module = new URL("ui.js", here).href;
    try {
      const missing = lacking();
      if (missing) throw new Error(missing);
      const { mount } = await import(module).catch(async (error) => {
        throw new Error((await whyNot(module)) ?? error.message);
      });
      await mount(sections, new URL("../local/playground.json", here), explain);
    } catch (error) {
      for (const section of sections) explain(section, error.message);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
