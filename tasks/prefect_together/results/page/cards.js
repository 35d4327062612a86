// Cards and the heads of strips
function nameOf(video) {
  return [`Row ${video.row}`, variantOf(video, { withModel: true }).replaceAll(" · ", ", ") + (video.takes ? ` of ${video.takes}` : "")].filter(Boolean).join(", ");
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
  return [...facts, ...cellsOf(video)];
}
function cellsOf(video) {
  return (video.cells ?? []).flatMap((cell, index) => (cell && cell.length < 40 ? [`${page.columns[index]}: ${cell}`] : []));
}
// What its strip's head does not say already
function ownFactsOf(video) {
  const facts = [];
  if (video.generationSeconds !== undefined) facts.push(`generated in ${seconds(video.generationSeconds)}`);
  if (video.width && video.height) facts.push(`${video.width} × ${video.height}`);
  if (video.attempts > 1) facts.push(`${video.attempts} attempts`);
  return facts;
}
function stillOf(video) {
  const still = element("img", undefined, "still");
  still.src = video.still;
  still.alt = `The still that ${nameOf(video)} begins with`;
  return still;
}
function blankFor(video) {
  const blank = [element("b", STATES[video.status].blank)];
  if (video.status === "in_doubt" && video.estimateUsd !== undefined) blank.push(element("small", dollars(video.estimateUsd)));
  return blank;
}
function labelOf(video, strip) {
  if (!strip.isPromptSame) return video.prompt ?? "(no prompt)";
  return variantOf(video, { withModel: layoutNow() === "list" }) || video.id;
}
function makeCard(video, strip) {
  const card = at("card").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  Object.assign(card, { video, strip });
  card.dataset.status = video.status;
  card.dataset.row = video.row;
  card.dataset.anchor = video.anchor;
  card.setAttribute("aria-label", nameOf(video));
  card.setAttribute("aria-setsize", shown.length);
  card.setAttribute("aria-posinset", video.place + 1);
  card.classList.toggle("with-error", Boolean(video.error));
  showMark(card);
  part("badge").textContent = STATES[video.status].label;
  part("where").textContent = nameOf(video) + (video.sharedWith ? ` · same job as row ${video.sharedWith}` : "") + ` · ${video.id}`;
  part("cost").textContent = costOf(video);
  part("anchor").href = addressOf({ video: video.anchor });
  part("anchor").setAttribute("aria-label", `Link to ${nameOf(video)}`);
  part("copy").hidden = video.prompt === undefined || strip.isPromptSame;
  part("copy").setAttribute("aria-label", `Copy the prompt of ${nameOf(video)}`);
  part("copy").onclick = () => copy(video.prompt, part("copy"));
  part("prompt").textContent = labelOf(video, strip);
  part("prompt").classList.toggle("quiet", video.prompt === undefined && !strip.isPromptSame);
  part("error").textContent = video.error ?? "";
  part("error").hidden = !video.error;
  part("facts").append(...(chosen.by === "row" && layoutNow() !== "list" ? ownFactsOf : factsOf)(video).map((fact) => element("span", fact)));
  part("open").onclick = () => openOne(video.place);
  if (layoutNow() === "sheet") part("open").title = labelOf(video, strip);
  const clip = part("clip");
  if (!video.source) {
    clip.replaceChildren(part("blank"));
    part("blank").append(...blankFor(video));
    if (video.still) clip.prepend(stillOf(video));
    return card;
  }
  part("blank").remove();
  part("length").textContent = video.seconds === undefined ? "" : seconds(video.seconds) + (video.hasAudio ? " · sound" : "");
  part("length").hidden = video.seconds === undefined;
  part("sound").hidden = !(strip.isPlayable && video.hasAudio);
  part("sound").setAttribute("aria-label", `Sound of ${nameOf(video)}`);
  part("sound").onclick = () => hear(strip, video);
  showSound(card);
  part("play").setAttribute("aria-label", `Play ${nameOf(video)}`);
  part("play").onclick = () => (layoutNow() === "sheet" ? openOne(video.place) : engage(card));
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

// The card that the address names
function showMark(card) {
  const isMarked = card.video.anchor === chosen.video;
  card.classList.toggle("marked", isMarked);
  if (isMarked) card.setAttribute("aria-current", "true"); else card.removeAttribute("aria-current");
}
function mark() {
  const video = anchored.get(chosen.video);
  if (video && shown[video.place] !== video) {
    Object.assign(chosen, { query: "", states: new Set(), model: "" });
    showChosen();
  }
  if (video) reveal(video);
  for (const card of cardsIn(cards)) showMark(card);
  if (video && !dialog.open) cardOf(video).querySelector(".open").focus({ preventScroll: true });
}

// The head of a strip: what its videos have in common, once
function commonId(some) {
  const [first] = some;
  let end = first.id.length;
  for (const { id } of some) while (!id.startsWith(first.id.slice(0, end))) end -= 1;
  return end === first.id.length ? first.id : first.id.slice(0, Math.max(0, first.id.lastIndexOf("--", end)));
}
function headFactsOf(strip) {
  const some = strip.videos, [first] = some;
  const there = some.filter((video) => video.status === "downloaded").length;
  const facts = chosen.by === "row" ? [`Row ${first.row}`, commonId(some), ...cellsOf(first)] : [];
  if (chosen.by === "row" && some.every((video) => video.model === first.model)) facts.push(first.model);
  if (first.sharedWith) facts.push(`same job as row ${first.sharedWith}`);
  const paid = some.filter((video) => video.costUsd !== undefined && !video.sharedWith);
  return [...facts, plural(some.length, "video") + (there < some.length ? `, ${there.toLocaleString("en-US")} downloaded` : ""),
    paid.length ? dollars(paid.reduce((sum, video) => sum + video.costUsd, 0), 2) : ""].filter(Boolean);
}
function titleOf(strip) {
  if (chosen.by !== "row") return GROUPS.get(chosen.by).title(strip.key);
  return strip.isPromptSame ? strip.videos[0].prompt ?? "(no prompt)" : `Row ${strip.key}`;
}
function makeHead(strip) {
  const head = at("head").content.firstElementChild.cloneNode(true);
  const part = (name) => head.querySelector(`.${name}`);
  head.strip = strip;
  part("prompt").textContent = titleOf(strip);
  part("facts").append(...headFactsOf(strip).map((fact) => element("span", fact)));
  part("copy").hidden = !strip.isPromptSame || strip.videos[0].prompt === undefined;
  part("copy").onclick = () => copy(strip.videos[0].prompt, part("copy"));
  part("together").hidden = !strip.isPlayable;
  part("together").setAttribute("aria-label", `All clips of ${chosen.by === "row" ? `row ${strip.key}` : titleOf(strip)}`);
  part("run").onclick = () => (playing === strip ? pauseTogether() : playTogether(strip));
  part("position").oninput = () => seekTogether(strip, Number(part("position").value));
  showTogether(strip, head);
  return head;
}

// navigator.clipboard is missing on pages that did not come by https
async function copy(text, button) {
  let isDone = true;
  try { await navigator.clipboard.writeText(text); } catch { isDone = copySelected(text, button); }
  at(dialog.open ? "said-in-dialog" : "said").textContent = isDone ? "Prompt copied" : "This browser did not allow copying";
  button.classList.toggle("done", isDone);
  setTimeout(() => { button.classList.remove("done"); at("said").textContent = at("said-in-dialog").textContent = ""; }, 2000);
}
function copySelected(text, button) {
  const area = element("textarea", undefined, "unseen");
  area.value = text;
  button.after(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  button.focus();
  return isDone;
}
