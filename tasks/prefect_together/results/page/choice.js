// Which videos, in which order
const chosen = { query: "", states: new Set(), model: "", sort: "row", descending: false, layout: "list" };
let shown = [];
const SORTS = {
  cost: (video) => (video.sharedWith ? undefined : video.costUsd), duration: (video) => video.seconds, generation: (video) => video.generationSeconds, status: (video) => ORDER.indexOf(video.status), model: (video) => video.model.toLowerCase(),
};
function searchable(video) {
  video.text ??= [video.prompt, video.id, `row ${video.row}`, video.jobId, video.file, video.model, video.error, STATES[video.status].label,
    ...(video.cells ?? []), ...page.parameters[video.parameters].flat()].filter(Boolean).join("\n").toLowerCase();
  return video.text;
}
function choose(change) {
  Object.assign(chosen, change);
  const words = chosen.query.toLowerCase().split(/\s+/).filter(Boolean);
  shown = videos.filter((video) => (!chosen.states.size || chosen.states.has(video.status)) && (!chosen.model || video.model === chosen.model)
    && (!words.length || words.every((word) => searchable(video).includes(word))));
  if (chosen.sort !== "row" || chosen.descending) order();
  for (const chip of at("states").children) chip.setAttribute("aria-pressed", chosen.states.has(chip.dataset.status));
  const shared = shown.filter((video) => video.sharedWith).length;
  at("shown").textContent = (shown.length === videos.length ? "" : `${shown.length.toLocaleString("en-US")} of `) + plural(videos.length, "video")
    + (shared ? `, ${shared.toLocaleString("en-US")} shared with an identical row` : "");
  at("reset").hidden = !(chosen.query || chosen.states.size || chosen.model);
  at("empty").hidden = shown.length > 0;
  at("empty").replaceChildren(element("b", videos.length ? "No video matches" : "No rows"),
    videos.length ? "Search for something else, or show all." : "The table has no rows, so there is nothing to show.");
  refill();
}
function order() {
  const value = SORTS[chosen.sort], sign = chosen.descending ? -1 : 1;
  const keyed = shown.map((video, index) => ({ video, index, key: chosen.sort === "row" ? index : value(video) }));
  keyed.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined) || a.index - b.index;
    return (a.key < b.key ? -sign : a.key > b.key ? sign : 0) || a.index - b.index;
  });
  shown = keyed.map((entry) => entry.video);
}
