// A form that is half filled in comes back after a reload or a crash: drafts.py says the rest. What differs from the
// page as it begins stands in this tab's own storage, by the ids of the inputs.
(() => {
  const TEXTS = "textarea, input:is([type=number], [type=range], [type=text], :not([type])):not([role])";
  const CHOSEN = "input[role=combobox]"; // a list whose entries may be typed
  const touched = new Map(); // when a person last changed an input, by its id
  const pressed = new Map(); // when a button of a form was last pressed, by the form
  const unseen = new Map(); // values of inputs that were not drawn yet, of whose change the server hears
  const brought = new Map(); // what was last brought into an input, by its id
  const unwritten = new Map(); // what Gradio has yet to take
  let key = "", ids = [], heard = new Set(), typable = new Set();
  let fresh = null; // what the page begins with, as JSON by id
  let begun = null; // the same, and what was submitted since
  let restored = new Map(), waiting = null, planned = null;
  const stale = new Set(); // forms of which something may have changed since they were stored

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const formOf = (id) => id.split("-")[0];
  const press = (id) => document.getElementById(id).click();
  const idOf = (element) => {
    for (let one = element.closest?.("[id]"); one; one = one.parentElement?.closest("[id]")) if (ids.includes(one.id)) return one.id;
    return null;
  };
  const read = (some = ids) => window.valuesOf(some);

  const stored = () => {
    try {
      return JSON.parse(sessionStorage.getItem(key)) ?? {};
    } catch {
      return {}; // a browser that keeps nothing for this page, or what another page wrote
    }
  };
  const store = (typed) => {
    try {
      if (Object.keys(typed).length) sessionStorage.setItem(key, JSON.stringify(typed));
      else sessionStorage.removeItem(key);
    } catch {
      // as above, or there is no room
    }
  };
  const save = (values) => {
    const typed = stored();
    for (const id of ids) {
      if (!values.has(id)) continue;
      if (values.get(id) === begun.get(id)) delete typed[id];
      else typed[id] = JSON.parse(values.get(id));
    }
    store(typed);
  };
  const saveStale = async () => {
    if (!begun || !stale.size) return;
    const some = ids.filter((id) => stale.has(formOf(id)));
    stale.clear();
    save(await read(some));
  };
  const saveSoon = (changed, ms) => {
    for (const id of changed) if (ids.includes(id)) stale.add(formOf(id));
    clearTimeout(planned);
    planned = setTimeout(saveStale, ms);
  };

  // A text is stored with each letter: the page may be gone before anything else could be asked.
  const note = (event) => {
    const field = event.target, id = ids.length && field.closest && idOf(field);
    if (!id) return;
    saveSoon([id], 50);
    if (!event.isTrusted) return;
    touched.set(id, performance.now());
    if (!begun || event.type !== "input") return;
    const isNumber = ["number", "range"].includes(field.type);
    if (field.matches(TEXTS) || (typable.has(id) && field.matches(CHOSEN))) {
      store({ ...stored(), [id]: !isNumber ? field.value : field.value === "" ? null : Number(field.value) });
    }
  };
  // A list takes what is chosen when the button goes down, and its entries are gone when it goes up.
  for (const name of ["input", "change", "mousedown", "click", "keyup"]) window.addEventListener(name, note, true);
  window.addEventListener("focusout", ({ target }) => saveSoon([idOf(target)], 50), true);
  document.addEventListener("answered", ({ detail }) => saveSoon(detail, 50));

  const presses = (event) => {
    if (event.type === "keydown" && event.key !== "Enter") return;
    const id = event.target.closest?.("button[id], [id] textarea, [id] input")?.closest("[id]")?.id;
    if (id) pressed.set(formOf(id), performance.now());
  };
  for (const name of ["click", "keydown"]) window.addEventListener(name, presses, true);

  // --- what is brought back ---
  const put = (values) => {
    window.changedByHand(new Set(values.keys()));
    for (const [id, value] of values) unwritten.set(id, value);
    press("drafts-write");
  };
  const write = (values) => {
    put(values);
    for (const [id, value] of values) {
      brought.set(id, value);
      if (heard.has(id) && !document.getElementById(id)) unseen.set(id, value);
    }
    document.dispatchEvent(new Event("form-filled"));
    saveSoon(values.keys(), 300);
  };
  const written = () => {
    const updates = ids.map((id) => ({ __type__: "update", ...(unwritten.has(id) ? { value: unwritten.get(id) } : {}) }));
    unwritten.clear();
    return updates;
  };
  // An input that is drawn with its value tells nobody of it: it changes once more, from what the page begins with,
  // unless something else was brought or typed into it meanwhile.
  const drawn = async () => {
    for (const [id, value] of [...unseen]) {
      if (!document.getElementById(id)) continue;
      unseen.delete(id);
      const isStill = () => !touched.has(id) && brought.get(id) === value;
      await pause(50);
      if (!isStill() || (await read()).get(id) !== JSON.stringify(value) || !isStill()) continue;
      put(new Map([[id, JSON.parse(fresh.get(id))]]));
      await pause(100);
      if (isStill()) put(new Map([[id, value]]));
    }
  };
  new MutationObserver(() => { if (unseen.size) drawn(); }).observe(document, { childList: true, subtree: true });

  const say = (words, ...buttons) => {
    const line = document.getElementById("restored");
    const make = ([label, act]) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", act);
      return button;
    };
    line.replaceChildren(words, ...buttons.map(make));
    line.hidden = !words;
  };
  const hide = () => say("");
  const values = (from) => new Map([...restored.keys()].map((id) => [id, JSON.parse(from.get(id))]));
  const startAfresh = () => {
    write(values(fresh));
    say("The page is as it begins.", ["Bring back what was typed", () => bringBack("Restored what was typed.")], ["Close", hide]);
  };
  const bringBack = (words) => {
    write(restored);
    say(words, ["Start afresh", startAfresh], ["Keep it", hide]);
  };

  const restore = async (answer) => {
    const { values, left_out: words } = JSON.parse(answer || '{"values": {}, "left_out": ""}');
    const now = await read();
    const isFree = ([id]) => !touched.has(id) && now.get(id) === fresh.get(id);
    restored = new Map(Object.entries(values).filter(isFree));
    if (restored.size) bringBack(`Restored what was typed. ${words}`.trim());
    else if (words) say(words, ["Close", hide]);
  };

  const begin = async (config) => {
    ids = config.ids;
    heard = new Set(config.heard);
    typable = new Set(config.typable);
    key = `tincture-form-${config.workspace}`;
    do await pause(200); while (!document.getElementById("drafts-write") || window.answersFor(new Set(ids)));
    fresh = await read();
    if (Object.keys(stored()).length) {
      const answer = new Promise((resolve) => { waiting = resolve; });
      press("drafts-check");
      await Promise.race([answer.then(restore), pause(30_000)]);
    }
    begun = new Map(fresh);
    for (const id of touched.keys()) begun.delete(id); // typed before it was known what stands there otherwise
    saveSoon([...touched.keys(), ...Object.keys(stored())], 300);
  };

  // A form was submitted: what it says is not brought back any more, but what was typed since is.
  const submitted = async (forms, isDone) => {
    if (!isDone || !begun) return;
    const [first] = forms, until = pressed.get(first) ?? Infinity;
    const submitted = ids.filter((id) => forms.includes(formOf(id)));
    const now = await read(submitted);
    for (const id of submitted) if ((touched.get(id) ?? 0) <= until) begun.set(id, now.get(id));
    hide();
    save(now);
  };

  window.drafts = {
    begin,
    submitted,
    isReady: () => begun !== null,
    stored: () => JSON.stringify(stored()),
    checked: (answer) => waiting?.(answer),
    written,
  };
})();
