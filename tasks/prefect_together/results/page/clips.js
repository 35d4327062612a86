// Clips: loaded in view, unloaded out of view; one plays at a time, or a strip's together
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    clearTimeout(target.timer);
    target.isNear = isIntersecting;
    if (isIntersecting) target.timer = setTimeout(load, 120, target);
    else unload(target);
  }
}, { rootMargin: "80px" });
function load(card) {
  const video = card.querySelector("video");
  if (!video || video.hasAttribute("src")) return;
  video.preload = "metadata";
  video.src = `${card.video.source}#t=${Math.max(0.001, Math.min(card.strip.time, (card.video.seconds ?? Infinity) - 0.05)).toFixed(3)}`;
}
function unload(card) {
  clearTimeout(card.timer);
  clearTimeout(card.hover);
  const video = card.querySelector("video");
  if (!video || !video.hasAttribute("src")) return;
  video.onerror = null;
  video.pause();
  video.removeAttribute("src");
  video.load();
  video.controls = false;
  video.muted = video.loop = true;
  video.parentElement.classList.remove("engaged", "previewing", "synced");
  video.onerror = () => showMissing(video.parentElement, card.video);
}
function preview(card) {
  const clip = card.querySelector(".clip");
  if (playing || clip.classList.contains("engaged") || clip.classList.contains("missing")) return;
  card.hover = setTimeout(() => {
    load(card);
    clip.classList.add("previewing");
    play(clip.querySelector("video"));
  }, 100);
}
function stopPreview(card) {
  clearTimeout(card.hover);
  const clip = card.querySelector(".clip");
  clip.classList.remove("previewing");
  clip.querySelector("video").pause();
}
function engage(card) {
  const clip = card.querySelector(".clip"), video = clip.querySelector("video");
  pauseTogether();
  clearTimeout(card.hover);
  load(card);
  clip.classList.remove("previewing");
  clip.classList.add("engaged");
  video.controls = true;
  video.muted = false;
  video.tabIndex = 0;
  video.currentTime = 0;
  video.focus();
  play(video);
}
function play(video) {
  video.play().catch(() => {}); // interrupted by leaving it, or not allowed: the controls are there
}
const isOfPlaying = (video) => Boolean(playing) && video.closest(".card")?.strip === playing;
document.addEventListener("play", (event) => {
  if (!isOfPlaying(event.target)) pauseTogether();
  for (const video of document.querySelectorAll("video")) if (video !== event.target && !isOfPlaying(video)) video.pause();
}, true);
