// The films that are joined from the clips, each with a chapter for every shot
const CHAPTER_CHARACTERS = 60;
function showFilms() {
  at("films").hidden = !page.films.length;
  at("films").append(...page.films.map(filmOf));
}
function filmOf(film) {
  const box = element("article", undefined, "film"), about = element("div", undefined, "about-film");
  const name = element("h2", film.name);
  name.dir = "auto";
  const facts = film.source ? `${plural(film.shots.length, "shot")} · ${unbroken(seconds(film.seconds))}` : "not made yet";
  about.append(name, element("p", facts, "quiet"));
  if (film.whyOld) about.append(withCode("p", film.source ? `An earlier cut; the new one ${film.whyOld}` : film.whyOld));
  if (film.source) box.append(playerOf(film, about));
  box.append(about);
  return box;
}
function playerOf(film, about) {
  const video = element("video"), chapters = element("ol", undefined, "chapters");
  Object.assign(video, { controls: true, preload: "metadata", playsInline: true, src: `${film.source}#t=0.001` });
  video.setAttribute("aria-label", film.name);
  const buttons = film.shots.map((shot, index) => {
    const button = element("button", undefined, "chapter"), words = shot.prompt.slice(0, CHAPTER_CHARACTERS);
    const title = element("span", (words.length < shot.prompt.length ? `${words.trimEnd()}…` : words) || shot.id);
    title.dir = "auto";
    button.type = "button";
    button.title = shot.id;
    button.append(element("span", timeOf(shot.start), "starts"), title);
    button.onclick = () => { video.currentTime = shot.start + 0.001; play(video); };
    const item = element("li");
    item.append(button);
    chapters.append(item);
    return button;
  });
  video.ontimeupdate = () => {
    const now = film.shots.findLastIndex((shot) => shot.start <= video.currentTime);
    buttons.forEach((button, index) => (index === now ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current")));
  };
  video.onerror = () => video.replaceWith(element("p", "The film is not beside this page", "empty"));
  about.append(chapters);
  return video;
}
const timeOf = (time) => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, "0")}`;
