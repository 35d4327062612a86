// A strip's clips played together: the longest gives the time, the others follow it. A clip that has ended keeps its
// last picture until the longest has, then all begin again. Only one is heard
const PATIENCE_MS = 2500, FAR_SECONDS = 0.25, NEAR_SECONDS = 0.03;
let playing = null;

const cardsOf = (strip) => [...cardsIn(cards)].filter((card) => card.strip === strip);
const headOf = (strip) => [...cards.querySelectorAll(".head")].find((head) => head.strip === strip);
function clipsOf(strip) {
  return cardsOf(strip).filter((card) => card.isNear && !card.querySelector(".missing"))
    .map((card) => card.querySelector("video[src]")).filter((video) => video?.duration);
}
function playTogether(strip) {
  pauseTogether();
  playing = strip;
  for (const video of document.querySelectorAll("video")) video.pause();
  for (const card of cardsOf(strip)) if (card.isNear) load(card);
  requestAnimationFrame(keepTogether);
  showTogether(strip);
}
function pauseTogether() {
  if (!playing) return;
  const strip = playing;
  playing = null;
  for (const card of cardsOf(strip)) {
    const video = card.querySelector("video");
    if (!video) continue;
    video.pause();
    video.muted = video.loop = true;
    video.playbackRate = 1;
    video.parentElement.classList.remove("synced");
  }
  showTogether(strip);
}
function seekTogether(strip, time) {
  strip.time = time;
  for (const card of cardsOf(strip)) if (card.isNear) load(card);
  for (const video of clipsOf(strip)) place(video, time);
  showTogether(strip);
}
// A server that sends no parts of a file lets a clip begin again, and go nowhere else
function place(video, time) {
  const end = video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0;
  if (time && end < video.duration - 0.1) return;
  video.currentTime = Math.min(time, Math.max(0, video.duration - 0.05));
}
function hear(strip, video) {
  strip.heard = strip.heard === video ? undefined : video;
  for (const card of cardsOf(strip)) showSound(card);
}
function showSound(card) {
  const isHeard = card.strip.heard === card.video;
  card.querySelector(".sound").setAttribute("aria-pressed", isHeard);
  if (isOfPlaying(card.querySelector("video"))) card.querySelector("video").muted = !isHeard;
}

function keepTogether(now) {
  const strip = playing;
  if (!strip) return;
  const clips = clipsOf(strip);
  const leader = clips.reduce((longest, video) => (longest && longest.duration >= video.duration ? longest : video), undefined);
  if (leader) {
    for (const video of clips) if (!video.parentElement.classList.contains("synced")) join(video, strip);
    const isLate = clips.some((video) => !isReady(video, strip.time));
    strip.waiting = isLate ? strip.waiting ?? now : undefined;
    if (isLate && now - strip.waiting < PATIENCE_MS) for (const video of clips) video.pause();
    else follow(strip, leader, clips);
  }
  requestAnimationFrame(keepTogether);
}
function join(video, strip) {
  video.parentElement.classList.remove("engaged", "previewing");
  video.parentElement.classList.add("synced");
  video.controls = video.loop = false;
  video.preload = "auto";
  video.muted = video.closest(".card").video !== strip.heard;
  place(video, strip.time);
}
const isReady = (video, time) => time >= video.duration - 0.1 || (!video.seeking && video.readyState >= 3);
function follow(strip, leader, clips) {
  if (leader.currentTime >= leader.duration - 0.03) {
    strip.time = 0;
    for (const video of clips) place(video, 0);
    showTogether(strip);
    return;
  }
  strip.time = leader.currentTime;
  for (const video of clips) {
    const behind = strip.time - video.currentTime;
    if (strip.time >= video.duration - 0.03) { video.pause(); continue; }
    if (Math.abs(behind) > FAR_SECONDS && !video.seeking) place(video, strip.time);
    video.playbackRate = Math.abs(behind) < NEAR_SECONDS ? 1 : 1 + Math.max(-0.25, Math.min(0.25, behind));
    if (video.paused) play(video);
  }
  showTogether(strip);
}

const clock = (value) => value.toFixed(1);
function setText(part, text) {
  if (part.textContent !== text) part.textContent = text;
}
function showTogether(strip, head = headOf(strip)) {
  if (!head) return;
  const length = strip.seconds || clipsOf(strip).reduce((most, video) => Math.max(most, video.duration), 0);
  const part = (name) => head.querySelector(`.${name}`), position = part("position");
  part("run").classList.toggle("running", playing === strip);
  setText(part("run").querySelector("span"), playing === strip ? "Pause" : "Play all");
  setText(part("clock"), `${clock(strip.time)} / ${clock(length)} s`);
  if (position.max !== String(length)) position.max = length;
  position.value = strip.time;
  position.setAttribute("aria-valuetext", `${clock(strip.time)} of ${clock(length)} seconds`);
}
