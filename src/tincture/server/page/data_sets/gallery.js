// The pictures in a grid, a page at a time. One button has the keyboard's place; arrow keys move it, Enter opens.
const A_PAGE = 24;

// `shown`: {grid, pager, place, back, forth, none}; `about(file)` gives {caption, marks, url, fault}; `open(file, keys)` is
// called when one is chosen, `keys` says whether by keyboard.
const makeGallery = (shown, about, open) => {
  let files = [], page = 0, current = "", place = "";
  const pages = () => Math.max(1, Math.ceil(files.length / A_PAGE));
  const onPage = () => files.slice(page * A_PAGE, (page + 1) * A_PAGE);
  const buttons = () => [...shown.grid.children];
  const buttonOf = (file) => buttons().find((each) => each.dataset.file === file);

  const label = (button, file) => {
    const { caption, marks } = about(file);
    button.querySelector("span").textContent = caption || "no caption";
    button.classList.toggle("missing", !caption);
    button.querySelector("i").textContent = marks.join(", ");
    button.setAttribute("aria-label", [file, caption || "no caption", ...marks].join(", "));
  };

  const made = (file) => {
    const button = make("button", { type: "button" }, make("span"), make("i"));
    button.dataset.file = file;
    const { url, fault: why } = about(file);
    const small = make("img", { alt: "", loading: "lazy", draggable: false });
    if (!why) small.src = url;
    button.prepend(small);
    button.addEventListener("click", (event) => open(file, event.detail === 0));
    button.addEventListener("focus", () => { place = file; mark(); });
    label(button, file);
    return button;
  };

  const mark = () => {
    const at = [place, current].find((file) => onPage().includes(file)) ?? onPage()[0];
    for (const button of buttons()) {
      button.setAttribute("aria-pressed", button.dataset.file === current);
      button.tabIndex = button.dataset.file === at ? 0 : -1;
    }
  };

  const draw = () => {
    page = Math.min(Math.max(page, 0), pages() - 1);
    shown.grid.replaceChildren(...onPage().map(made));
    shown.pager.hidden = pages() < 2;
    shown.place.textContent = `Page ${page + 1} of ${pages()}`;
    shown.none.hidden = files.length > 0;
    mark();
  };

  const pageOf = (file) => {
    const at = files.indexOf(file);
    if (at < 0 || Math.floor(at / A_PAGE) === page) return;
    page = Math.floor(at / A_PAGE);
    draw();
  };

  const turn = (by) => { page += by; draw(); };
  shown.back.addEventListener("click", () => turn(-1));
  shown.forth.addEventListener("click", () => turn(1));

  shown.grid.addEventListener("keydown", (event) => {
    const columns = getComputedStyle(shown.grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: A_PAGE, PageUp: -A_PAGE };
    const at = files.indexOf(event.target.dataset?.file);
    const ends = { Home: 0, End: files.length - 1 };
    const target = ends[event.key] ?? at + by[event.key];
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey || Number.isNaN(target)) return;
    event.preventDefault();
    gallery.focus(files[Math.min(Math.max(target, 0), files.length - 1)]);
  });

  const gallery = {
    files: () => files,
    show: (list, from = 0) => { files = list; page = from; draw(); },
    mark: (file) => { current = place = file; pageOf(file); mark(); },
    focus: (file) => { place = file; pageOf(file); buttonOf(file)?.focus(); },
    relabel: (file) => { const button = buttonOf(file); if (button) label(button, file); },
    redraw: (file) => {
      const former = buttonOf(file), hasFocus = former && former === document.activeElement;
      former?.replaceWith(made(file));
      mark();
      if (hasFocus) buttonOf(file).focus();
    },
    // The same list without one; the one that takes its place, or the last, or "".
    without: (file) => {
      const at = files.indexOf(file);
      files = files.filter((each) => each !== file);
      draw();
      return at < 0 ? "" : files[Math.min(at, files.length - 1)] ?? "";
    },
    beside: (file, by) => {
      const at = files.indexOf(file);
      return at < 0 ? files[0] ?? "" : files[Math.min(Math.max(at + by, 0), files.length - 1)];
    },
    where: (file) => (files.includes(file) ? `${files.indexOf(file) + 1} of ${files.length}` : "not among those listed"),
  };
  return gallery;
};
