// What is shown: filters, order, groups and layout, kept in the address after #, so that a link shows the same
const hasVariants = videos.some((video, index) => index && video.row === videos[index - 1].row);
const USUAL = { query: "", model: "", sort: "row", by: hasVariants ? "row" : "none", layout: hasVariants ? "gallery" : "list", video: "" };
const chosen = { ...USUAL, states: new Set(), descending: false };
let shown = [], strips = [];
const SORTS = {
  row: (video) => video.index, cost: (video) => (video.sharedWith ? undefined : video.costUsd), duration: (video) => video.seconds,
  generation: (video) => video.generationSeconds, status: (video) => ORDER.indexOf(video.status), model: (video) => video.model.toLowerCase(),
};
const GROUPS = new Map([
  ["none", { label: "No groups" }],
  ["row", { label: "By row", key: (video) => video.row }],
  ["model", { label: "By model", key: (video) => video.model, title: (key) => key }],
  ...page.columns.map((name, index) => [`column:${name}`,
    { label: `By ${name}`, key: (video) => video.cells?.[index] ?? "", title: (key) => `${name}: ${key || "(empty)"}` }]),
]);

// Every video has an anchor of its own: its id, with its take, and its row if another row shares its job
const anchored = new Map();
videos.forEach((video, index) => {
  video.index = index;
  const anchor = video.id + (video.takes ? `-take${video.take}` : "");
  video.anchor = anchored.has(anchor) ? `${anchor}-row${video.row}` : anchor;
  anchored.set(video.anchor, video);
});

function addressOf(change) {
  const view = { ...chosen, ...change }, words = new URLSearchParams();
  for (const [name, usual] of Object.entries(USUAL)) if (view[name] !== usual) words.set(name, view[name]);
  if (view.states.size) words.set("status", [...view.states].join(","));
  if (view.descending) words.set("descending", "yes");
  return `#${words}`;
}
function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const oneOf = (name, allowed) => (allowed.includes(words.get(name)) ? words.get(name) : USUAL[name]);
  return {
    query: words.get("query") ?? "", video: words.get("video") ?? "", descending: words.get("descending") === "yes",
    states: new Set((words.get("status") ?? "").split(",").filter((status) => ORDER.includes(status))),
    model: oneOf("model", page.totals.models.map((model) => model.model)), sort: oneOf("sort", Object.keys(SORTS)),
    by: oneOf("by", [...GROUPS.keys()]), layout: oneOf("layout", ["list", "gallery", "sheet"]),
  };
}
let writing;
function choose(change) {
  Object.assign(chosen, { video: "" }, change);
  showChosen();
  clearTimeout(writing);
  writing = setTimeout(writeAddress, 150); // browsers allow only so many changes a minute
}
function writeAddress() {
  clearTimeout(writing);
  if (location.hash !== addressOf({})) history.replaceState(null, "", addressOf({}));
}

function searchable(video) {
  video.text ??= [video.prompt, video.id, `row ${video.row}`, video.jobId, video.file, video.model, video.error, STATES[video.status].label,
    ...(video.cells ?? []), ...page.parameters[video.parameters].flat()].filter(Boolean).join("\n").toLowerCase();
  return video.text;
}
function found() {
  const words = chosen.query.toLowerCase().split(/\s+/).filter(Boolean);
  return videos.filter((video) => (!chosen.states.size || chosen.states.has(video.status)) && (!chosen.model || video.model === chosen.model)
    && (!words.length || words.every((word) => searchable(video).includes(word))));
}
function ordered(some) {
  const value = SORTS[chosen.sort], sign = chosen.descending ? -1 : 1;
  const keyed = some.map((video) => ({ video, key: value(video) }));
  keyed.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined) || a.video.index - b.video.index;
    return (a.key < b.key ? -sign : a.key > b.key ? sign : 0) || a.video.index - b.video.index;
  });
  return keyed.map((entry) => entry.video);
}

// A strip is a group's videos: they play together. Those of a row stay in the table's order, so that strips can be compared
function stripsOf(some) {
  const { key } = GROUPS.get(chosen.by);
  if (!key) return some.length ? [makeStrip(undefined, some)] : [];
  const byKey = groupedBy(some, key);
  return [...byKey].map(([value, group]) => makeStrip(value, chosen.by === "row" ? group.sort((a, b) => a.index - b.index) : group));
}
function groupedBy(some, key) {
  const groups = new Map();
  for (const one of some) {
    const value = key(one);
    if (groups.has(value)) groups.get(value).push(one); else groups.set(value, [one]);
  }
  return groups;
}
function makeStrip(key, group) {
  const isSame = chosen.by === "row" && group.every((video) => video.prompt === group[0].prompt);
  const clips = group.filter((video) => video.source);
  return { key, videos: group, isPromptSame: isSame, isPlayable: key !== undefined && clips.length > 1, time: 0,
    seconds: clips.reduce((most, video) => Math.max(most, video.seconds ?? 0), 0), heard: clips.find((video) => video.hasAudio) };
}

// What tells a row's videos apart, besides their model: each parameter that has several values with the same model
function namesThatVary(some) {
  const sent = [...new Set(some.map((video) => video.parameters))].map((index) => new Map(page.parameters[index]));
  return [...new Set(sent.flatMap((one) => [...one.keys()]))].filter((name) => new Set(sent.map((one) => one.get(name))).size > 1);
}
const variants = new Map();
for (const [row, group] of groupedBy(videos, (video) => video.row)) {
  const byModel = groupedBy(group, (video) => video.model);
  variants.set(row, { names: [...new Set([...byModel.values()].flatMap(namesThatVary))], hasModels: byModel.size > 1 });
}
function variantOf(video, { withModel = false } = {}) {
  const { names, hasModels } = variants.get(video.row), sent = new Map(page.parameters[video.parameters]);
  return [withModel && hasModels ? video.model : "", ...names.filter((name) => sent.has(name)).map((name) => `${name} ${short(sent.get(name))}`),
    video.takes ? `take ${video.take}` : ""].filter(Boolean).join(" · ");
}
