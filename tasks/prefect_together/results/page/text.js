"use strict";
// Nothing here builds HTML from text: what the table and the service said is set as text only.
const page = JSON.parse(document.getElementById("data").textContent);
const videos = page.videos;
const at = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const STATES = {
  downloaded: { label: "Downloaded", blank: "Clip is not beside this page" },
  submitted: { label: "Submitted", blank: "Still generating" },
  planned: { label: "Planned", blank: "Not sent yet" },
  in_doubt: { label: "In doubt", blank: "Possibly billed" },
  refused: { label: "Refused", blank: "Not sent" },
  failed: { label: "Failed", blank: "No clip" },
};
const ORDER = ["in_doubt", "failed", "refused", "planned", "submitted", "downloaded"];

// Words and numbers
const plural = (count, word) => `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
const fixed = (value, most) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: most });
const dollars = (value, most = 4) => (value === undefined || value === null ? "–" : `$${fixed(value, most)}`);
const percent = (share) => (Math.abs(share) < 0.0005 ? "none" : `${share >= 0 ? "+" : "−"}${Math.abs(share * 100).toFixed(1)} %`);
function seconds(value) {
  if (value < 60) return `${+value.toFixed(value < 10 ? 1 : 0)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}
const short = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);
const unbroken = (text) => text.replaceAll(" ", "\u00a0");
function bytes(value) {
  return value < 1e6 ? `${Math.max(1, Math.round(value / 1e3))} kB` : `${(value / 1e6).toFixed(value < 1e8 ? 1 : 0)} MB`;
}
function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
// Text with `commands` in it
function withCode(tag, text) {
  const made = element(tag);
  text.split("`").forEach((part, index) => made.append(index % 2 ? element("code", part) : part));
  return made;
}
