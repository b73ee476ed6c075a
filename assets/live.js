/** Keeps a live page up to date: takes what the run sends and replaces the parts that have changed. */
(() => {
  const main = document.querySelector("main");

  /** Parts in their order; those whose text is the same are left alone, so that what was opened in them stays open, and a click on them finds them. */
  function show({ parts, charts }) {
    let before = null;
    for (const { id, version, html } of parts) {
      let place = main.querySelector(`[data-part="${id}"]`);
      if (!place) {
        place = document.createElement("div");
        place.dataset.part = id;
        (before ?? main.querySelector("h1")).after(place);
      }
      if (place.dataset.version !== version) {
        const opened = [...place.querySelectorAll("details")].map((details) => details.open);
        place.innerHTML = html;
        place.querySelectorAll("details").forEach((details, i) => {
          details.open = opened[i] ?? false;
        });
      }
      place.dataset.version = version;
      before = place;
    }
    document.dispatchEvent(new CustomEvent("charts", { detail: charts }));
  }

  /** Above the rest, while the run does not answer. */
  function warn(text) {
    const line = document.querySelector(".unreachable") ?? document.createElement("p");
    line.className = "state unreachable";
    line.textContent = text;
    if (text) main.querySelector("h1").after(line);
    else line.remove();
  }

  const source = new EventSource(`events${location.search}`);
  source.addEventListener("open", () => warn(""));
  source.addEventListener("update", ({ data }) => show(JSON.parse(data)));
  source.addEventListener("end", ({ data }) => {
    source.close();
    document.documentElement.dataset.ended = "";
    show(JSON.parse(data));
  });
  source.addEventListener("error", () => {
    if (document.documentElement.dataset.ended === undefined)
      warn("The run does not answer: it was ended from outside. A run that resumes it has a page of its own.");
  });
})();
