// Controls
function layOut(name) {
  const isGallery = name === "gallery" || matchMedia("(max-width: 44rem)").matches;
  cards.className = `cards ${isGallery ? "gallery" : "list"}`;
  at("as-list").setAttribute("aria-pressed", name === "list");
  at("as-gallery").setAttribute("aria-pressed", name === "gallery");
  chosen.layout = name;
  refill();
}
function showTools() {
  const counts = {};
  for (const video of videos) counts[video.status] = (counts[video.status] ?? 0) + 1;
  for (const status of [...ORDER].reverse().filter((status) => counts[status])) {
    const chip = element("button", undefined, "chip");
    chip.type = "button";
    chip.dataset.status = status;
    chip.title = plural(counts[status], "video");
    chip.append(element("i"), `${STATES[status].label} `, element("span", counts[status].toLocaleString("en-US")));
    chip.onclick = () => {
      const states = new Set(chosen.states);
      if (!states.delete(status)) states.add(status);
      choose({ states });
    };
    at("states").append(chip);
  }
  const models = page.totals.models.map((model) => model.model);
  at("model").append(...models.map((model) => element("option", model)));
  at("model").hidden = models.length < 2;
  at("tools").hidden = !videos.length;
}
let typing;
at("query").oninput = () => { clearTimeout(typing); typing = setTimeout(() => choose({ query: at("query").value }), videos.length > 2000 ? 150 : 30); };
at("model").onchange = () => choose({ model: at("model").value });
at("sort").onchange = () => choose({ sort: at("sort").value });
at("direction").onclick = () => {
  choose({ descending: !chosen.descending });
  at("direction").setAttribute("aria-pressed", chosen.descending);
  at("direction").classList.toggle("up", chosen.descending);
};
at("reset").onclick = () => {
  at("query").value = at("model").value = "";
  choose({ query: "", states: new Set(), model: "" });
};
at("as-list").onclick = () => layOut("list");
at("as-gallery").onclick = () => layOut("gallery");
at("tools").onsubmit = (event) => event.preventDefault();
document.addEventListener("keydown", (event) => {
  const isText = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !isText && !dialog.open) { event.preventDefault(); at("query").focus(); }
});
addEventListener("scroll", soon, { passive: true });
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) layOut(chosen.layout);
  else soon();
  width = innerWidth;
});

showHead();
showFigures();
showStates();
showModels();
showTools();
cards.className = matchMedia("(max-width: 44rem)").matches ? "cards gallery" : "cards list";
choose({});
document.documentElement.dataset.ready = "true";
