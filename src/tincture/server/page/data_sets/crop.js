// A frame over the picture, in pixels of the picture: drawn and dragged by pointer, moved and sized by keys or in fields.
const LEAST_CROP = 8;
const clamp = (value, least, most) => Math.min(Math.max(Math.round(value), least), most);
const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

// Where in something of `size` an event is that happens on `stage`.
const pointIn = (stage, event, size) => {
  const { left, top, width, height } = stage.getBoundingClientRect();
  return [((event.clientX - left) / width) * size[0], ((event.clientY - top) / height) * size[1]];
};

// `shown`: {stage, frame, box, fields: {left, top, width, height}}; `ratio(size)` is width by height of the frame, or
// undefined for any; `accept()` is called for Enter.
const makeCrop = (shown, ratio, accept) => {
  let size = [1, 1], box = null, drag = null;

  // The largest frame of the proportions that is not larger than asked.
  const fit = ({ left, top, width, height }) => {
    const wanted = ratio(size);
    if (wanted) {
      width = Math.min(width, size[0], size[1] * wanted);
      height = width / wanted;
    }
    width = clamp(width, LEAST_CROP, size[0]);
    height = clamp(height, LEAST_CROP, size[1]);
    return { left: clamp(left, 0, size[0] - width), top: clamp(top, 0, size[1] - height), width, height };
  };
  const draw = () => {
    shown.frame.hidden = !box;
    if (!box) return;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(shown.box.style, {
      left: percent(box.left, size[0]), top: percent(box.top, size[1]),
      width: percent(box.width, size[0]), height: percent(box.height, size[1]),
    });
    for (const [name, field] of Object.entries(shown.fields)) if (document.activeElement !== field) field.value = box[name];
    shown.box.setAttribute("aria-label", `Frame of ${box.width} × ${box.height} pixels from ${box.left}, ${box.top} on`);
  };
  const set = (next) => { box = next && fit(next); draw(); };

  // From the corner that stays to the pointer.
  const span = ([fixedX, fixedY], [x, y]) => {
    const wanted = ratio(size), leftwards = x < fixedX, upwards = y < fixedY;
    let width = Math.abs(x - fixedX), height = Math.abs(y - fixedY);
    if (wanted) {
      const room = [leftwards ? fixedX : size[0] - fixedX, upwards ? fixedY : size[1] - fixedY];
      width = Math.min(Math.max(width, height * wanted), room[0], room[1] * wanted);
      height = width / wanted;
    }
    return { left: leftwards ? fixedX - width : fixedX, top: upwards ? fixedY - height : fixedY, width, height };
  };
  const begin = (event) => {
    const [x, y] = pointIn(shown.stage, event, size), corner = event.target.dataset?.corner;
    const { left, top, width, height } = box;
    if (corner) return { from: [corner.includes("w") ? left + width : left, corner.includes("n") ? top + height : top] };
    const moves = shown.box.contains(event.target) && (width < size[0] || height < size[1]);
    return moves ? { by: [x - left, y - top] } : { from: [clamp(x, 0, size[0]), clamp(y, 0, size[1])] };
  };
  shown.frame.addEventListener("pointerdown", (event) => {
    if (!box || event.button) return;
    event.preventDefault();
    drag = begin(event);
    shown.frame.setPointerCapture(event.pointerId);
    shown.box.focus();
  });
  shown.frame.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = pointIn(shown.stage, event, size).map((value, axis) => clamp(value, 0, size[axis]));
    if (drag.by) return set({ ...box, left: x - drag.by[0], top: y - drag.by[1] });
    const next = span(drag.from, [x, y]);
    if (Math.min(next.width, next.height) >= LEAST_CROP) set(next);
  });
  for (const name of ["pointerup", "pointercancel"]) shown.frame.addEventListener(name, () => { drag = null; });

  shown.box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      return accept();
    }
    const by = STEPS[event.key], wanted = ratio(size);
    if (!by || !box) return;
    event.preventDefault();
    const [x, y] = by.map((part) => part * (event.ctrlKey ? 1 : 8));
    if (event.shiftKey) set({ ...box, width: box.width + (wanted ? x || y * wanted : x), height: box.height + y });
    else set({ ...box, left: box.left + x, top: box.top + y });
  });
  for (const [name, field] of Object.entries(shown.fields)) {
    field.addEventListener("change", () => {
      if (!box) return;
      const value = Number(field.value) || 0, wanted = ratio(size);
      set({ ...box, [name]: value, ...(name === "height" && wanted ? { width: value * wanted } : {}) });
      field.value = box[name];
    });
  }
  return {
    open: (width, height) => { size = [width, height]; set({ left: 0, top: 0, width, height }); },
    reshape: () => { if (box) set({ left: 0, top: 0, width: size[0], height: size[1] }); },
    close: () => { box = drag = null; draw(); },
    box: () => box,
  };
};
for (const corner of ["nw", "ne", "sw", "se"]) {
  const handle = make("i", { className: "ds-corner" });
  handle.dataset.corner = corner;
  find("ds-box").append(handle);
}
