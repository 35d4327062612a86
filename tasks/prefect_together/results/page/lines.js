// Lines of cards and heads: a long list is as tall as if all were there, and holds those near the window.
// All lines of a kind are of one height, so that one of each has to be measured and no more
const SPARE_PIXELS = videos.length <= 200 ? Infinity : 600;
const LEAST_REM = { list: 52, gallery: 17, sheet: 9.5 }, LEAST_COMPARED_REM = { gallery: 10, sheet: 7 }, LEAST_PHONE_REM = { gallery: 17, sheet: 6.5 };
const phone = matchMedia("(max-width: 44rem)");
const cards = at("cards");
const inPlace = new Map(), heights = new Map();
let lines = [], totalHeight = 0;

const layoutNow = () => (phone.matches && chosen.layout === "list" ? "gallery" : chosen.layout);
function fitting(leastRem) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize), gap = parseFloat(getComputedStyle(cards).getPropertyValue("--gap")) * rem;
  return Math.max(1, Math.floor((cards.clientWidth + gap) / (leastRem * rem + gap)));
}
function flow(some, columns, strip) {
  const made = [];
  for (let from = 0; from < some.length; from += columns) made.push({ kind: `cards ${columns}`, columns, strip, videos: some.slice(from, from + columns) });
  return made;
}
// Strips of rows have their cards in columns: one for each video where all fit side by side, else one for each model,
// with its further variants under it, else a model's videos under its name. The most of any strip counts, so that all are alike
function columnsOf(compared) {
  const layout = layoutNow(), most = (size) => Math.max(...compared.map(size));
  const side = fitting(phone.matches ? LEAST_COMPARED_REM[layout] : Math.min(15, LEAST_REM[layout])), narrow = fitting(LEAST_COMPARED_REM[layout]);
  const across = most((strip) => strip.videos.length), models = most((strip) => new Set(strip.videos.map((video) => video.model)).size);
  if (across <= side) return { form: "across", columns: across };
  return models > 1 && models <= narrow ? { form: "matrix", columns: models } : { form: "stacked", columns: side };
}
function compared(strip, { form, columns }) {
  const byModel = groupedBy(strip.videos, (video) => video.model);
  const names = (spans) => ({ kind: `names ${columns}`, columns, spans });
  if (byModel.size === 1) return flow(strip.videos, columns, strip);
  if (form === "across") return [names([...byModel].map(([model, some]) => [model, some.length])), ...flow([...byModel.values()].flat(), columns, strip)];
  if (form === "stacked") return [...byModel].flatMap(([model, some]) => [names([[model, columns]]), ...flow(some, columns, strip)]);
  const made = [names([...byModel.keys()].map((model) => [model, 1]))];
  for (const some of groupedBy(strip.videos, (video) => variantOf(video)).values()) {
    const cells = groupedBy(some, (video) => video.model);
    const depth = Math.max(...[...cells.values()].map((cell) => cell.length));
    for (let index = 0; index < depth; index += 1) made.push(...flow([...byModel.keys()].map((model) => cells.get(model)?.[index]), columns, strip));
  }
  return made;
}
function linesOf(some) {
  if (!some.length) return [];
  const layout = layoutNow(), isCompared = chosen.by === "row" && layout !== "list";
  const columns = isCompared ? columnsOf(some) : fitting((phone.matches ? LEAST_PHONE_REM : LEAST_REM)[layout]);
  return some.flatMap((strip, index) => [...(strip.key === undefined ? [] : [{ kind: index ? "head" : "first-head", strip }]),
    ...(isCompared ? compared(strip, columns) : flow(strip.videos, columns, strip))]);
}
function makeLine(line) {
  const made = element("div", undefined, `line of-${line.kind.split(" ")[0]}`);
  made.line = line;
  if (line.columns) made.style.setProperty("--columns", line.columns);
  if (line.spans) made.append(...line.spans.map(([model, span]) => {
    const name = element("h3", model);
    name.style.gridColumn = `span ${span}`;
    return name;
  }));
  else if (line.videos) made.append(...line.videos.map((video) => (video ? makeCard(video, line.strip) : element("span", undefined, "hole"))));
  else made.append(makeHead(line.strip));
  return made;
}
function heightOf(line) {
  if (!heights.has(line.kind)) {
    const made = makeLine(line);
    cards.append(made);
    heights.set(line.kind, made.getBoundingClientRect().height);
    made.remove();
  }
  return heights.get(line.kind);
}
function layOut() {
  for (const made of inPlace.values()) remove(made);
  inPlace.clear();
  heights.clear();
  cards.className = `cards ${layoutNow()}${chosen.by === "row" ? " by-row" : ""}`;
  lines = linesOf(strips);
  totalHeight = 0;
  for (const line of lines) {
    line.top = totalHeight;
    totalHeight += heightOf(line);
  }
}
function refill() {
  layOut();
  const top = cards.getBoundingClientRect().top - at("tools").offsetHeight;
  if (top < 0) scrollBy(0, top);
  fill();
}
function lineAt(pixels) {
  let low = 0, high = lines.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (lines[middle].top <= pixels) low = middle; else high = middle - 1;
  }
  return low;
}
function fill() {
  if (!lines.length) { cards.style.padding = "0"; return; }
  const above = -cards.getBoundingClientRect().top;
  const first = lineAt(above - SPARE_PIXELS), last = lineAt(above + innerHeight + SPARE_PIXELS) + 1;
  for (const [index, made] of inPlace) if (index < first || index >= last) { remove(made); inPlace.delete(index); }
  const present = [...inPlace.keys()].sort((a, b) => a - b);
  for (let index = first, next = 0; index < last; index += 1) {
    if (present[next] === index) next += 1;
    else put(index, present[next]);
  }
  cards.style.padding = `${lines[first].top}px 0 ${last < lines.length ? totalHeight - lines[last].top : 0}px`;
}
function put(index, before) {
  const made = makeLine(lines[index]);
  cards.insertBefore(made, inPlace.get(before) ?? null);
  inPlace.set(index, made);
  for (const card of cardsIn(made)) inView.observe(card);
}
function remove(made) {
  for (const card of cardsIn(made)) { inView.unobserve(card); unload(card); }
  made.remove();
}
const cardsIn = (part) => part.querySelectorAll(".card");
const cardOf = (video) => [...cardsIn(cards)].find((card) => card.video === video);
let isWaiting = false;
function soon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; fill(); });
}
const toolsHeight = () => (phone.matches ? 0 : at("tools").offsetHeight);
// Scroll to a video, with its strip's head where both fit the window
function reveal(video) {
  const index = lines.findIndex((line) => line.videos?.includes(video));
  if (index < 0) return;
  const head = lines.findLast((line, before) => before < index && line.kind.endsWith("head"));
  const isNear = head && lines[index].top + heightOf(lines[index]) - head.top < innerHeight - toolsHeight();
  scrollTo(0, cards.getBoundingClientRect().top + scrollY + (isNear ? head : lines[index]).top - toolsHeight() - 8);
  fill();
}
function firstInView() {
  const above = toolsHeight() - cards.getBoundingClientRect().top;
  return above > 0 ? lines.slice(lineAt(above)).find((line) => line.videos)?.videos.find(Boolean) : undefined;
}
