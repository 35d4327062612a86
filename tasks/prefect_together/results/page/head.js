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
  if (summary.runUrl) {
    const link = element("a", summary.runName || "run in Prefect");
    link.href = summary.runUrl;
    about.append(" · ", link);
  } else if (summary.runName) about.append(` · ${summary.runName}`);
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
  figure("Estimated", dollars(totals.estimatedUsd, 2), totals.unpriced ? `${plural(totals.unpriced, "video")} without a known price` : "for all videos, before sending");
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
function showModels() {
  const models = page.totals.models;
  at("models-box").hidden = !models.length;
  at("models-box").open = models.length <= 3;
  const sum = (name) => models.reduce((total, model) => total + model[name], 0);
  const drift = sum("settledUsd") / sum("settledEstimateUsd") - 1;
  const verdict = Math.abs(drift) < 0.0005 ? "billed as estimated" : `billed ${(Math.abs(drift) * 100).toFixed(1)} % ${drift > 0 ? "above" : "below"} the estimate`;
  at("models-title").textContent = (models.length === 1 ? models[0].model : `${models.length} models`) + (Number.isFinite(drift) ? `: ${verdict}` : ": cost and time");
  for (const model of models) {
    const row = element("tr");
    const name = element("button", model.model);
    name.type = "button";
    name.title = "Show this model's videos";
    name.onclick = () => { at("model").value = model.model; choose({ model: model.model }); };
    const first = element("td");
    first.append(name);
    const settled = model.settledEstimateUsd > 0;
    row.append(first, ...[model.videos.toLocaleString("en-US"), model.downloaded.toLocaleString("en-US"), settled ? dollars(model.settledEstimateUsd, 2) : "–",
      dollars(model.spentUsd, 2), model.drift === null ? "–" : percent(model.drift),
      model.generationSeconds === null ? "–" : seconds(model.generationSeconds)].map((text) => element("td", text)));
    at("models").append(row);
  }
}
