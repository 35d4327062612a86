// One video in full
const dialog = at("dialog");
let opened = -1;
function pairs(title, entries) {
  const kept = entries.filter(([, text]) => text !== undefined && text !== "");
  if (!kept.length) return [];
  const list = element("dl", undefined, "pairs");
  for (const [name, text, className] of kept) {
    const pair = element("div");
    const value = element("dd", typeof text === "string" ? text : undefined, className);
    value.dir = "auto";
    if (typeof text !== "string") value.append(text);
    pair.append(element("dt", name), value);
    list.append(pair);
  }
  return [element("h3", title), list];
}
function linkTo(video) {
  if (!video.source) return video.file;
  const link = element("a", video.file ?? video.source);
  link.href = video.source;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}
function problemOf(video) {
  const note = video.reason && page.reasons[video.reason].note;
  if (!video.error && !note) return [];
  const box = element("div", undefined, "problem");
  if (video.error) box.append(element("p", video.error));
  if (note) box.append(withCode("p", note));
  return [box];
}
function toShare(video) {
  const box = element("p", undefined, "share");
  const button = element("button", undefined, "copy"), link = element("a", "Link to this video");
  button.type = "button";
  button.append(element("span", "Copy prompt"));
  button.hidden = video.prompt === undefined;
  button.onclick = () => copy(video.prompt, button);
  link.href = addressOf({ video: video.anchor });
  box.append(button, link);
  return [box];
}
function openOne(place) {
  const video = shown[place];
  opened = place;
  pauseTogether();
  at("one-title").textContent = `${nameOf(video)} · ${video.id}`;
  at("before").disabled = place === 0;
  at("after").disabled = place === shown.length - 1;
  dialog.dataset.status = video.status;
  showClip(video);
  const badge = element("span", STATES[video.status].label, "badge");
  const whole = element("p", video.prompt ?? "(no prompt)", video.prompt === undefined ? "whole quiet" : "whole");
  whole.dir = "auto";
  const say = (value, words) => (value === undefined ? undefined : words(value));
  at("one-body").replaceChildren(badge, ...(video.sharedWith ? [` same job as row ${video.sharedWith}, paid once`] : []), whole, ...toShare(video), ...problemOf(video),
    ...pairs("Sent", [["model", video.model], ...page.parameters[video.parameters]]),
    ...pairs("Cost", [["billed", video.sharedWith ? undefined : say(video.costUsd, dollars)], ["estimated", say(video.estimateUsd, dollars)], ["still", say(video.stillUsd, dollars)], ["attempts", String(video.attempts)], ["job", video.jobId, "code"]]),
    ...pairs("Clip", [["length", say(video.seconds, seconds)], ["size", video.width && video.height ? `${video.width} × ${video.height}` : undefined],
      ["frames a second", say(video.fps, (fps) => String(+fps.toFixed(3)))], ["sound", say(video.hasAudio, (has) => (has ? "yes" : "no"))], ["generated in", say(video.generationSeconds, seconds)],
      ["file", linkTo(video)], ["bytes", say(video.bytes, (size) => `${size.toLocaleString("en-US")} (${bytes(size)})`)], ["SHA-256", video.sha256, "code"]]),
    ...pairs("Your columns", (video.cells ?? []).map((cell, index) => [page.columns[index], cell])));
  at("one-body").scrollTop = 0;
  if (!dialog.open) dialog.showModal();
}
function showClip(video) {
  dropClip();
  const clip = at("one-clip");
  clip.classList.remove("missing");
  at("full").classList.toggle("bare", !video.source);
  if (!video.source) {
    const blank = element("span", undefined, "blank");
    blank.append(...blankFor(video));
    clip.replaceChildren(...(video.still ? [stillOf(video)] : []), blank);
    return;
  }
  const player = element("video");
  player.controls = player.loop = player.muted = player.playsInline = true;
  player.onerror = () => showMissing(clip, video);
  player.src = `${video.source}#t=0.001`;
  clip.replaceChildren(player);
  if (!calm.matches) play(player);
}
function dropClip() {
  const player = at("one-clip").querySelector("video");
  if (!player) return;
  player.onerror = null;
  player.removeAttribute("src");
  player.load();
  player.remove();
}
function step(by) {
  if (shown[opened + by]) openOne(opened + by);
}
at("before").onclick = () => step(-1);
at("after").onclick = () => step(1);
at("close").onclick = () => dialog.close();
dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
dialog.onkeydown = (event) => {
  if (event.target.tagName === "VIDEO" || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
};
dialog.onclose = () => {
  dropClip();
  const video = shown[opened], box = cardOf(video)?.getBoundingClientRect();
  if (!box || box.bottom < 0 || box.top > innerHeight) reveal(video);
  fill();
  cardOf(video)?.querySelector(".open").focus({ preventScroll: true });
};
