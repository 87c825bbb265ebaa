/* Starts the playground, or says why it cannot run and shows the recorded film instead. No module, because a page that
   was opened as a file may not load modules, and has to be told so. */
{
  const here = document.currentScript.src;

  const lacking = () => {
    if (location.protocol === "file:") {
      return (
        "This page was opened as a file, and browsers let no file load networks. Serve the folder instead: " +
        "python3 -m http.server --directory _build/html, then open localhost:8000."
      );
    }
    if (typeof WebAssembly === "undefined") return "This browser has no WebAssembly, or it is switched off.";
    if (typeof Worker === "undefined") return "This browser has no web workers.";
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
    try {
      const missing = lacking();
      if (missing) throw new Error(missing);
      const { mount } = await import(new URL("ui.js", here).href);
      await mount(sections, new URL("../local/playground.json", here), explain);
    } catch (error) {
      for (const section of sections) explain(section, error.message);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
