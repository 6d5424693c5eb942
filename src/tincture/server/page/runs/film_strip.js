// Previews of a run: all prompts in one grid, at the step of the slider. `props.value` is
// {run, before, columns, rows: [{prompt, frames: [{step, url}]}]}. Only what changed is touched, so that what one looks at stays.
const film = element.querySelector(".film"), strip = element.querySelector(".frames"), grid = element.querySelector(".shots");
const slider = element.querySelector("input[type=range]"), output = element.querySelector("output");
const beside = element.querySelector("input[type=checkbox]");
let run = null, steps = [], follows = true;
const rows = () => props.value?.rows ?? [];

const shotOf = ({ prompt }) => {
  const shot = document.createElement("figure"), words = document.createElement("figcaption");
  const pair = document.createElement("div");
  shot.className = "shot";
  pair.className = "compare";
  words.textContent = prompt;
  for (let n = 0; n < 2; n++) {
    const link = document.createElement("a"), label = document.createElement("span");
    Object.assign(link, { target: "_blank", rel: "noopener" });
    link.append(document.createElement("img"), label);
    pair.append(link);
  }
  shot.append(words, pair);
  return shot;
};

const put = (link, frame, prompt) => {
  const [picture, label] = link.children;
  if (picture.getAttribute("src") !== frame.url) { picture.src = frame.url; link.href = frame.url; }
  picture.alt = `${prompt}, step ${frame.step}`;
  label.textContent = `step ${frame.step}`;
};

const choose = (index) => {
  if (!steps.length) return;
  const last = steps.length - 1, chosen = Math.min(Math.max(index, 0), last), step = steps[chosen];
  slider.max = last;
  slider.value = chosen;
  beside.parentElement.hidden = !last;
  rows().forEach(({ prompt, frames }, place) => {
    const [early, late] = grid.children[place].querySelectorAll("a");
    const now = frames.filter((frame) => frame.step <= step).at(-1) ?? frames[0];
    early.hidden = !beside.checked || now === frames[0]; // the first beside itself says nothing
    put(early, frames[0], prompt);
    put(late, now, prompt);
  });
  output.textContent = `step ${step}`;
  slider.setAttribute("aria-valuetext", output.textContent);
  [...strip.children].forEach((frame, place) => frame.setAttribute("aria-pressed", place === chosen));
};

const frameOf = ({ step, url }, index) => {
  const frame = document.createElement("button"), picture = document.createElement("img");
  frame.type = "button";
  Object.assign(picture, { src: url, alt: `step ${step}`, loading: "lazy" });
  frame.append(picture, document.createTextNode(`${step}`));
  frame.addEventListener("click", () => { follows = index === steps.length - 1; choose(index); });
  return frame;
};

// The strip shows the first prompt, and of another run's steps that it has not, the picture before.
const frameAt = (step) => {
  const { frames } = rows()[0];
  return { step, url: (frames.filter((frame) => frame.step <= step).at(-1) ?? frames[0]).url };
};

const update = () => {
  const names = rows().map(({ prompt }) => prompt).join("\n");
  film.hidden = !rows().length;
  if (!rows().length) { run = null; steps = []; strip.replaceChildren(); grid.replaceChildren(); return; }
  const before = steps;
  steps = [...new Set(rows().flatMap(({ frames }) => frames.map(({ step }) => step)))].sort((a, b) => a - b);
  const grows = props.value.run === run && before.every((step, place) => step === steps[place]);
  if (!grows) {
    if (props.value.run !== run) beside.checked = props.value.before;
    run = props.value.run;
    follows = true;
    strip.replaceChildren();
  }
  if (grid.dataset.names !== names || grid.children.length !== rows().length) {
    grid.dataset.names = names;
    grid.replaceChildren(...rows().map(shotOf));
    const { columns } = props.value; // those of several runs stand beside each other
    if (columns) grid.style.gridTemplateColumns = `repeat(${columns}, minmax(110px, 1fr))`;
    else grid.removeAttribute("style");
  }
  const atEnd = strip.scrollLeft + strip.clientWidth > strip.scrollWidth - 40;
  steps.slice(strip.children.length).forEach((step) => strip.append(frameOf(frameAt(step), strip.children.length)));
  choose(follows ? steps.length - 1 : Number(slider.value));
  if (atEnd && follows) requestAnimationFrame(() => { strip.scrollLeft = strip.scrollWidth; });
};

slider.addEventListener("input", () => {
  follows = Number(slider.value) === steps.length - 1;
  choose(Number(slider.value));
});
beside.addEventListener("change", () => choose(Number(slider.value)));
watch("value", update);
update();
