// Controls
function showChosen() {
  pauseTogether();
  strips = stripsOf(ordered(found()));
  shown = strips.flatMap((strip) => strip.videos);
  shown.forEach((video, index) => { video.place = index; });
  if (at("query").value !== chosen.query) at("query").value = chosen.query;
  for (const name of ["model", "sort", "by"]) at(name).value = chosen[name];
  at("direction").setAttribute("aria-pressed", chosen.descending);
  at("direction").classList.toggle("up", chosen.descending);
  for (const chip of at("states").children) chip.setAttribute("aria-pressed", chosen.states.has(chip.dataset.status));
  for (const button of at("layout").children) button.setAttribute("aria-pressed", button.value === layoutNow());
  showCount();
  refill();
}
function showCount() {
  const shared = shown.filter((video) => video.sharedWith).length;
  at("shown").textContent = (shown.length === videos.length ? "" : `${shown.length.toLocaleString("en-US")} of `) + plural(videos.length, "video")
    + (shared ? `, ${shared.toLocaleString("en-US")} shared with an identical row` : "");
  at("reset").hidden = !(chosen.query || chosen.states.size || chosen.model);
  at("empty").hidden = shown.length > 0;
  at("empty").replaceChildren(element("b", videos.length ? "No video matches" : "No rows"),
    videos.length ? "Search for something else, or show all." : "The table has no rows, so there is nothing to show.");
}
// The same video stays at the window's top
function keepingPlace(change) {
  const video = firstInView();
  change();
  if (video) reveal(video);
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
  at("by").append(...[...GROUPS].map(([value, { label }]) => { const option = element("option", label); option.value = value; return option; }));
  at("tools").hidden = !videos.length;
}
let typing;
at("query").oninput = () => { clearTimeout(typing); typing = setTimeout(() => choose({ query: at("query").value }), videos.length > 2000 ? 150 : 30); };
at("model").onchange = () => choose({ model: at("model").value });
at("sort").onchange = () => choose({ sort: at("sort").value });
at("by").onchange = () => choose({ by: at("by").value });
at("direction").onclick = () => choose({ descending: !chosen.descending });
at("reset").onclick = () => {
  clearTimeout(typing);
  choose({ query: "", states: new Set(), model: "" });
};
for (const button of at("layout").children) button.onclick = () => keepingPlace(() => choose({ layout: button.value }));
at("tools").onsubmit = (event) => event.preventDefault();
document.addEventListener("keydown", (event) => {
  const isText = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !isText && !dialog.open) { event.preventDefault(); at("query").focus(); }
});
addEventListener("scroll", soon, { passive: true });
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) keepingPlace(() => { layOut(); fill(); });
  else soon();
  width = innerWidth;
});
addEventListener("hashchange", () => {
  const before = addressOf({ video: "" });
  Object.assign(chosen, fromAddress());
  if (addressOf({ video: "" }) !== before) showChosen();
  mark();
});
addEventListener("pagehide", writeAddress);

showHead();
showFilms();
showFigures();
showStates();
showModels();
showTools();
Object.assign(chosen, fromAddress());
showChosen();
if (chosen.video) mark();
document.documentElement.dataset.ready = "true";
