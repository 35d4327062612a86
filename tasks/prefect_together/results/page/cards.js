function nameOf(video) {
  return `Row ${video.row}` + (video.takes ? `, take ${video.take} of ${video.takes}` : "");
}
function costOf(video) {
  if (video.sharedWith) return "shared";
  if (video.costUsd !== undefined) return dollars(video.costUsd);
  return video.estimateUsd === undefined ? "price unknown" : `≈ ${dollars(video.estimateUsd)}`;
}
function factsOf(video) {
  const facts = [video.model];
  const sent = new Map(page.parameters[video.parameters]);
  if (sent.has("width") && sent.has("height")) {
    facts.push(`${sent.get("width")} × ${sent.get("height")}`);
    sent.delete("width");
    sent.delete("height");
  }
  for (const [name, text] of sent) if (text.length < 40) facts.push(`${name} ${text}`);
  if (video.generationSeconds !== undefined) facts.push(`generated in ${seconds(video.generationSeconds)}`);
  if (video.attempts > 1) facts.push(`${video.attempts} attempts`);
  (video.cells ?? []).forEach((cell, index) => { if (cell && cell.length < 40) facts.push(`${page.columns[index]}: ${cell}`); });
  return facts;
}
function blankFor(video) {
  const blank = [element("b", STATES[video.status].blank)];
  if (video.status === "in_doubt" && video.estimateUsd !== undefined) blank.push(element("small", dollars(video.estimateUsd)));
  return blank;
}
function makeCard(video, place) {
  const card = at("card").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  card.dataset.status = video.status;
  card.dataset.row = video.row;
  card.place = place;
  card.video = video;
  card.setAttribute("aria-setsize", shown.length);
  card.setAttribute("aria-posinset", place + 1);
  card.classList.toggle("with-error", Boolean(video.error));
  part("badge").textContent = STATES[video.status].label;
  part("where").textContent = nameOf(video) + (video.sharedWith ? ` · same job as row ${video.sharedWith}` : "") + ` · ${video.id}`;
  part("cost").textContent = costOf(video);
  part("prompt").textContent = video.prompt ?? "(no prompt)";
  part("prompt").classList.toggle("quiet", video.prompt === undefined);
  part("error").textContent = video.error ?? "";
  part("error").hidden = !video.error;
  part("facts").append(...factsOf(video).map((fact) => element("span", fact)));
  part("open").onclick = () => openOne(place);
  const clip = part("clip");
  if (!video.source) {
    clip.replaceChildren(part("blank"));
    part("blank").append(...blankFor(video));
    return card;
  }
  part("blank").remove();
  part("length").textContent = video.seconds === undefined ? "" : seconds(video.seconds) + (video.hasAudio ? " · sound" : "");
  part("length").hidden = video.seconds === undefined;
  part("play").setAttribute("aria-label", `Play ${nameOf(video)}`);
  part("play").onclick = () => engage(card);
  clip.onpointerenter = (event) => { if (event.pointerType === "mouse" && !calm.matches) preview(card); };
  clip.onpointerleave = () => { if (clip.classList.contains("previewing")) stopPreview(card); };
  part("play").onfocus = () => load(card);
  card.querySelector("video").onerror = () => showMissing(clip, video);
  return card;
}
function showMissing(clip, video) {
  if (clip.classList.contains("missing")) return;
  clip.classList.add("missing");
  const blank = element("span", undefined, "blank");
  blank.append(element("b", "Clip not found"), element("small", video.file ?? ""));
  clip.append(blank);
}
