// Previews of a run as a film strip. `props.value` is {run, rows: [{prompt, frames: [{step, url}]}]}.
// Only new frames are added, so that what one looks at stays where it is.
const big = element.querySelector(".compare"), strip = element.querySelector(".frames");
const slider = element.querySelector("input"), told = element.querySelector("output");
const prompts = element.querySelector("select");
const [early, late] = big.querySelectorAll("img");
let run = null, row = 0, follows = true;
const frames = () => props.value?.rows?.[row]?.frames ?? [];

const choose = (index) => {
  const all = frames();
  if (!all.length) return;
  const last = all.length - 1, chosen = Math.min(Math.max(index, 0), last);
  slider.max = last;
  early.parentElement.hidden = !last; // the first beside itself says nothing
  slider.value = chosen;
  for (const [picture, frame] of [[early, all[0]], [late, all[chosen]]]) {
    if (picture.getAttribute("src") !== frame.url) picture.src = frame.url;
    picture.alt = `${props.value.rows[row].prompt}, step ${frame.step}`;
    picture.nextElementSibling.textContent = `step ${frame.step}`;
  }
  told.textContent = `step ${all[chosen].step}`;
  slider.setAttribute("aria-valuetext", told.textContent);
  [...strip.children].forEach((frame, place) => frame.setAttribute("aria-pressed", place === chosen));
};

const frameOf = ({ step, url }, index) => {
  const frame = document.createElement("button"), picture = document.createElement("img");
  frame.type = "button";
  Object.assign(picture, { src: url, alt: `step ${step}`, loading: "lazy" });
  frame.append(picture, document.createTextNode(`${step}`));
  frame.addEventListener("click", () => { follows = index === frames().length - 1; choose(index); });
  return frame;
};

const update = () => {
  const rows = props.value?.rows ?? [];
  element.querySelector(".film").hidden = !rows.length;
  if (!rows.length) { run = null; strip.replaceChildren(); return; }
  if (props.value.run !== run || strip.children.length > frames().length) {
    if (props.value.run !== run) { run = props.value.run; row = 0; }
    follows = true;
    strip.replaceChildren();
  }
  prompts.hidden = rows.length < 2;
  if (prompts.length !== rows.length) prompts.replaceChildren(...rows.map(({ prompt }, n) => new Option(prompt, n)));
  prompts.value = row;
  const atEnd = strip.scrollLeft + strip.clientWidth > strip.scrollWidth - 40;
  frames().slice(strip.children.length).forEach((frame) => strip.append(frameOf(frame, strip.children.length)));
  choose(follows ? frames().length - 1 : Number(slider.value));
  if (atEnd && follows) requestAnimationFrame(() => { strip.scrollLeft = strip.scrollWidth; });
};

slider.addEventListener("input", () => {
  follows = Number(slider.value) === frames().length - 1;
  choose(Number(slider.value));
});
prompts.addEventListener("change", () => {
  row = Number(prompts.value);
  const place = Number(slider.value);
  strip.replaceChildren();
  update();
  choose(place);
});
watch("value", update);
update();
