// A mask over the picture: painted on a canvas of the picture's proportions; what is red is not learned.
const LONGEST_MASK = 1024, MOST_STROKES = 12;

// `shown`: {canvas, size}; `erases()` says whether the brush takes red away; `painted(canUndo)` is called after each stroke.
const makeMask = (shown, erases, painted) => {
  const mask = document.createElement("canvas"), tool = mask.getContext("2d", { willReadFrequently: true });
  const view = shown.canvas.getContext("2d");
  let stroke = null, point = null, ready = false, before = [];
  const pixels = () => tool.getImageData(0, 0, mask.width, mask.height);
  const radius = () => (Number(shown.size.value) / 200) * Math.max(mask.width, mask.height);

  const draw = () => {
    const seen = pixels(), { data } = seen;
    for (let at = 0; at < data.length; at += 4) {
      data[at + 3] = (255 - data[at]) * 0.62;
      [data[at], data[at + 1], data[at + 2]] = [200, 30, 40];
    }
    view.putImageData(seen, 0, 0);
    if (!point || document.activeElement !== shown.canvas) return;
    view.strokeStyle = "white";
    view.lineWidth = Math.max(1, mask.width / 200);
    view.beginPath();
    view.arc(...point, radius(), 0, 7);
    view.stroke();
  };
  const keep = () => { before = [...before.slice(1 - MOST_STROKES), pixels()]; };
  const paint = (from, to) => {
    tool.strokeStyle = erases() ? "white" : "black";
    tool.lineCap = "round";
    tool.lineWidth = 2 * radius();
    tool.beginPath();
    tool.moveTo(...from);
    tool.lineTo(to[0] + 0.01, to[1]);
    tool.stroke();
    draw();
  };
  const at = (event) => pointIn(shown.canvas, event, [mask.width, mask.height]);
  const end = () => {
    if (!stroke) return;
    stroke = null;
    painted(true);
  };

  shown.canvas.addEventListener("pointerdown", (event) => {
    if (!ready || event.button) return;
    event.preventDefault();
    shown.canvas.focus();
    shown.canvas.setPointerCapture(event.pointerId);
    keep();
    stroke = point = at(event);
    paint(stroke, stroke);
  });
  shown.canvas.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    point = at(event);
    paint(stroke, point);
    stroke = point;
  });
  for (const name of ["pointerup", "pointercancel"]) shown.canvas.addEventListener(name, end);
  shown.canvas.addEventListener("keydown", (event) => {
    const by = STEPS[event.key];
    if (!ready || (!by && event.key !== " ")) return;
    event.preventDefault();
    point ??= [mask.width / 2, mask.height / 2];
    const from = point, sides = [mask.width, mask.height];
    if (by) point = from.map((value, axis) => Math.min(Math.max(value + by[axis] * radius(), 0), sides[axis]));
    if (event.key === " " && !stroke) { keep(); stroke = point; }
    if (stroke) paint(from, point);
    else draw();
  });
  shown.canvas.addEventListener("keyup", (event) => { if (event.key === " ") end(); });
  shown.canvas.addEventListener("focus", () => { if (ready) draw(); });
  shown.canvas.addEventListener("blur", () => { end(); if (ready) draw(); });

  const fill = () => { tool.fillStyle = "white"; tool.fillRect(0, 0, mask.width, mask.height); };
  const whole = (act) => () => { if (ready) { keep(); act(); draw(); painted(true); } };
  return {
    // `picture`: an image of the mask that is there, or null.
    open: (width, height, picture) => {
      const scale = Math.min(1, LONGEST_MASK / Math.max(width, height));
      mask.width = shown.canvas.width = Math.max(1, Math.round(width * scale));
      mask.height = shown.canvas.height = Math.max(1, Math.round(height * scale));
      fill();
      if (picture) tool.drawImage(picture, 0, 0, mask.width, mask.height);
      before = [];
      point = stroke = null;
      ready = true;
      draw();
    },
    close: () => { end(); ready = false; },
    undo: () => {
      const last = before.pop();
      if (!last) return;
      tool.putImageData(last, 0, 0);
      draw();
      painted(before.length > 0);
    },
    invert: whole(() => {
      tool.globalCompositeOperation = "difference";
      fill();
      tool.globalCompositeOperation = "source-over";
    }),
    clear: whole(fill),
    isBlack: () => { const { data } = pixels(); return !data.some((value, place) => place % 4 === 0 && value); },
    png: () => mask.toDataURL("image/png").split(",")[1],
  };
};
