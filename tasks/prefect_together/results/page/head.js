// The head of the page
function showHead() {
  const { summary, totals } = page;
  at("title").textContent = page.title;
  const about = at("about");
  const made = totals.videos === totals.rows ? plural(totals.rows, "row") : `${plural(totals.rows, "row")}, ${plural(totals.videos, "video")}`;
  const when = new Date(summary.writtenAt ?? "");
  const parts = [summary.table === page.title ? "" : summary.table, made,
    Number.isNaN(+when) ? summary.writtenAt : unbroken(when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })),
    summary.runSeconds === null ? "" : unbroken(`${seconds(summary.runSeconds)} of run time`)];
  about.append(parts.filter(Boolean).join(" · "));
  const pill = (text, status) => { const made = element("span", text, "pill"); if (status) made.dataset.status = status; about.append(" ", made); };
  if (summary.isRunning) pill("run in progress", "submitted");
  if (summary.isSandbox) pill("sandbox: imitated clips, nothing paid", "in_doubt");
}
function showFigures() {
  const { totals, summary } = page;
  const counts = totals.rowsByStatus;
  const figure = (name, value, below, status, isNone) => {
    const box = element("div", undefined, isNone ? "none" : "");
    if (status && !isNone) box.dataset.status = status;
    const main = element("dd");
    main.append(...[value].flat());
    box.append(element("dt", name), main, element("dd", below));
    at("figures").append(box);
  };
  const done = totals.rows ? `${Math.floor((counts.downloaded / totals.rows) * 100)} %` : "the table is empty";
  const clips = videos.filter((video) => video.status === "downloaded").length;
  figure("Downloaded", [counts.downloaded.toLocaleString("en-US"), element("small", ` of ${plural(totals.rows, "row")}`)],
    videos.length === totals.rows ? done : `${done} · ${clips.toLocaleString("en-US")} of ${plural(videos.length, "video")}`, counts.failed && !counts.downloaded ? "failed" : "", !totals.rows);
  const held = totals.inDoubtUsd + totals.failedUsd;
  const budget = summary.budgetUsd === null ? "" : `of a budget of ${dollars(summary.budgetUsd, 2)}, `;
  const billed = summary.isSandbox ? "at the sandbox's prices, nothing is billed" : held && budget ? `${dollars(held, 2)} held for requests in doubt or failed jobs` : "as billed by the service";
  figure("Spent", dollars(totals.spentUsd, 2), budget + billed);
  figure("Estimated", dollars(totals.estimatedUsd, 2), totals.unpricedVideos ? `${plural(totals.unpricedVideos, "video")} without a known price` : "for all videos, before sending");
  figure("In doubt", dollars(totals.inDoubtUsd, 2), counts.in_doubt ? `${plural(counts.in_doubt, "row")}, possibly billed` : "nothing", "in_doubt", !counts.in_doubt);
  figure("Failed jobs", totals.failedUsd ? [element("small", "up to "), dollars(totals.failedUsd, 2)] : dollars(0), totals.failedUsd ? "no clip, possibly charged" : "nothing to be charged", "failed", !totals.failedUsd);
}
function showStates() {
  const { totals, summary } = page;
  const counts = totals.rowsByStatus;
  const present = [...ORDER].reverse().filter((status) => counts[status]);
  for (const status of present) {
    const part = element("i");
    part.dataset.status = status;
    part.style.flexGrow = counts[status];
    at("bar").append(part);
  }
  at("bar").setAttribute("aria-label", present.map((status) => `${counts[status]} ${STATES[status].label.toLowerCase()}`).join(", ") || "no rows");
  for (const status of ORDER) {
    const notes = Object.values(page.reasons).map(({ rows, note }) => ({ rows: rows[status], note }));
    for (const { rows, note } of notes.filter(({ rows }) => rows)) {
      const item = element("li");
      item.dataset.status = status;
      item.append(element("b", `${plural(rows, "row")} ${STATES[status].label.toLowerCase()}`), withCode("span", note));
      at("notes").append(item);
    }
  }
  at("warnings-box").hidden = !summary.warnings.length;
  at("warnings-title").textContent = plural(summary.warnings.length, "warning");
  at("warnings").append(...summary.warnings.map((text) => element("li", text)));
}
// Each model's figures, with a bar where they can be compared: [name, number or null, words, what its bar is a part of]
function figuresOf(model, most) {
  const known = (value, words) => (value === null ? "–" : words(value));
  return [
    ["Downloaded", model.downloaded, `${model.downloaded.toLocaleString("en-US")} of ${model.videos.toLocaleString("en-US")}`, model.videos],
    ["Failed", model.failed, model.failed.toLocaleString("en-US")],
    ["Dollars a clip", model.clipUsd, known(model.clipUsd, (value) => dollars(value, 3)), most("clipUsd")],
    ["Time to generate", model.generationSeconds, known(model.generationSeconds, seconds), most("generationSeconds")],
    ["Charged", model.spentUsd, dollars(model.spentUsd, 2)],
    ["Drift", model.drift, known(model.drift, percent)],
  ];
}
const WHAT_FIGURES_ARE = {
  "Dollars a clip": "What a downloaded clip was charged, on average", "Time to generate": "Median, from the request to the finished clip",
  Drift: "Charged compared with estimated, of the videos of which both are known",
};
function showModels() {
  const models = page.totals.models;
  at("models-box").hidden = !models.length;
  at("models-box").open = models.length <= 8;
  const sum = (name) => models.reduce((total, model) => total + model[name], 0);
  const drift = sum("settledUsd") / sum("settledEstimateUsd") - 1;
  const verdict = Math.abs(drift) < 0.0005 ? "billed as estimated" : `billed ${(Math.abs(drift) * 100).toFixed(1)} % ${drift > 0 ? "above" : "below"} the estimate`;
  at("models-title").textContent = (models.length === 1 ? models[0].model : `${models.length} models`) + (Number.isFinite(drift) ? `: ${verdict}` : ": cost and time");
  const most = (name) => (models.length > 1 ? Math.max(...models.map((model) => model[name] ?? 0)) : 0);
  for (const model of models) at("models").append(rowOf(model, figuresOf(model, most)));
  if (models.length) at("models-head").append(...["Model", ...figuresOf(models[0], most).map(([name]) => name)].map(headCell));
}
function headCell(name) {
  const cell = element("th", name);
  cell.scope = "col";
  cell.setAttribute("role", "columnheader");
  if (WHAT_FIGURES_ARE[name]) cell.title = WHAT_FIGURES_ARE[name];
  return cell;
}
function rowOf(model, figures) {
  const row = element("tr"), name = element("button", model.model), first = element("th");
  row.setAttribute("role", "row");
  first.scope = "row";
  first.setAttribute("role", "rowheader");
  name.type = "button";
  name.title = "Show this model's videos";
  name.onclick = () => choose({ model: model.model });
  first.append(name);
  row.append(first, ...figures.map(figureCell));
  return row;
}
function figureCell([name, value, words, whole]) {
  const cell = element("td");
  cell.setAttribute("role", "cell");
  cell.dataset.name = name;
  if (name === "Failed" && value) cell.dataset.status = "failed";
  cell.append(element("span", words));
  if (whole && value !== null) {
    const bar = element("i", undefined, "share");
    bar.style.setProperty("--share", value / whole);
    cell.append(bar);
  }
  return cell;
}
