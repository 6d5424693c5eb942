// Says the step and the value under the pointer, for charts that plot.py drew. Runs once for each gr.HTML.
let at = null; // from 0 at the left to 1 at the right
const sizeOf = (chart) => chart.querySelector("svg").getAttribute("viewBox").split(" ").slice(2).map(Number);
const nearest = (path, x) => {
  let best = null;
  for (const point of path.getAttribute("d").slice(1).split("L")) {
    const place = point.split(" ").map(Number);
    if (!best || Math.abs(place[0] - x) < Math.abs(best[0] - x)) best = place;
  }
  return best;
};
const show = (chart) => {
  const plot = chart.querySelector(".plot"), note = chart.querySelector(".note");
  if (at === null) {
    plot.style.removeProperty("--at");
    note.textContent = note.dataset.usual ?? note.textContent;
    return;
  }
  const [width, height] = sizeOf(chart);
  const [x0, x1] = chart.dataset.x.split(" ").map(Number), [y0, y1] = chart.dataset.y.split(" ").map(Number);
  const point = nearest(chart.querySelector("path:last-of-type"), at * width);
  note.dataset.usual ??= note.textContent;
  const step = Math.round(x0 + (point[0] / width) * (x1 - x0)), value = y1 - (point[1] / height) * (y1 - y0);
  note.textContent = `step ${step}: ${Number(value.toPrecision(4))}`;
  plot.style.setProperty("--at", `${(point[0] / width) * 100}%`);
};
const showAll = () => element.querySelectorAll(".chart").forEach(show);
element.addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot");
  const box = plot?.getBoundingClientRect();
  const now = box ? Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) : null;
  if (now === at) return;
  at = now;
  showAll();
});
element.addEventListener("pointerleave", () => { at = null; showAll(); });
watch("value", () => { if (at !== null) showAll(); });
