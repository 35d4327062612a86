// Cards: a long list is as tall as if all were there, and holds those near the window
const SPARE = videos.length <= 200 ? 200 : 3;
const cards = at("cards");
const inPlace = new Map();
let columns = 1, rowHeight = 0;
function refill() {
  for (const card of inPlace.values()) remove(card);
  inPlace.clear();
  rowHeight = 0;
  const top = cards.getBoundingClientRect().top - at("tools").offsetHeight;
  if (top < 0) scrollBy(0, top);
  fill();
}
function measure() {
  const card = cards.firstElementChild;
  const style = getComputedStyle(cards);
  columns = style.gridTemplateColumns.split(" ").length;
  rowHeight = card.getBoundingClientRect().height + parseFloat(style.rowGap);
}
function fill() {
  if (!shown.length) { cards.style.padding = "0"; return; }
  if (!inPlace.size) put(0, 0);
  if (!rowHeight) measure();
  const above = -cards.getBoundingClientRect().top;
  const rows = Math.ceil(shown.length / columns);
  const first = Math.min(Math.max(0, Math.floor(above / rowHeight) - SPARE), rows - 1);
  const last = Math.max(first + 1, Math.min(rows, Math.ceil((above + innerHeight) / rowHeight) + SPARE));
  const from = first * columns, to = Math.min(last * columns, shown.length);
  for (const [place, card] of inPlace) if (place < from || place >= to) { remove(card); inPlace.delete(place); }
  const present = [...inPlace.keys()].sort((a, b) => a - b);
  for (let place = from, next = 0; place < to; place += 1) {
    if (present[next] === place) next += 1;
    else put(place, present[next]);
  }
  cards.style.padding = `${first * rowHeight}px 0 ${(rows - last) * rowHeight}px`;
}
function put(place, before) {
  const card = makeCard(shown[place], place);
  cards.insertBefore(card, inPlace.get(before) ?? null);
  inPlace.set(place, card);
  inView.observe(card);
}
function remove(card) {
  inView.unobserve(card);
  unload(card);
  card.remove();
}
let isWaiting = false;
function soon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; fill(); });
}
