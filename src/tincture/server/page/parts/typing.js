// No answer changes a text, a number or a slider under the fingers of who types or moves it: requests.js decides which
// answers may write into which inputs, but Gradio writes them some time later, and by then more may have been typed.
(() => {
  // Not those with a role: a list's own text is written when something is chosen from it.
  const FIELDS = "textarea, input:is([type=number], [type=range], [type=text], :not([type])):not([role])";
  const strokes = new WeakMap(); // by field: how often something was typed in it
  const passed = new WeakMap(); // by field: what answers may write, and how often had been typed when that was decided
  const withheld = new WeakMap(); // by number: what an answer has for it, until it is finished or left
  const unfinished = new WeakSet(); // numbers that go on: "", "-", "0.", "1e", and those out of range

  const isTyped = (field) => field.matches?.(FIELDS);
  const isNumber = (field) => field.type === "number";
  const hasFocus = (field) => field === document.activeElement;
  const textOf = (value) => String(value ?? "");

  window.addEventListener("input", (event) => {
    const field = event.target;
    if (!event.isTrusted || !isTyped(field)) return;
    strokes.set(field, (strokes.get(field) ?? 0) + 1);
    withheld.delete(field);
    // The browser does not say that "0." stands there; its value is "0".
    const { rangeUnderflow, rangeOverflow } = field.validity;
    const goesOn = field.value === "" || rangeUnderflow || rangeOverflow || /[-+.,eE]$/.test(event.data ?? "");
    isNumber(field) && goesOn ? unfinished.add(field) : unfinished.delete(field);
  }, true);

  // A number that is left unfinished is the one that the server has.
  window.addEventListener("focusout", ({ target: field }) => {
    const value = withheld.get(field);
    withheld.delete(field);
    if (unfinished.delete(field) && value !== undefined) write(field, value);
  }, true);

  const sound = (field) => field.dispatchEvent(new Event("input", { bubbles: true }));
  const write = (field, value) => setTimeout(() => {
    field.value = textOf(value);
    sound(field);
  });

  // Whether an answer may write `value` into the input, an element of the page; what it may is remembered.
  const mayWrite = (input, value) => {
    for (const field of input?.querySelectorAll(FIELDS) ?? []) {
      if (hasFocus(field) && unfinished.has(field)) {
        withheld.set(field, value);
        return false;
      }
      if (!passed.has(field)) passed.set(field, new Map());
      passed.get(field).set(textOf(value), strokes.get(field) ?? 0);
    }
    return true;
  };

  const isLate = (field, value) => {
    if (!hasFocus(field) || !isTyped(field)) return false;
    if (isNumber(field) && textOf(value) !== "" && Number(value) === field.valueAsNumber) return true;
    return passed.get(field)?.get(textOf(value)) < (strokes.get(field) ?? 0);
  };

  // "1e" reads as nothing, and as nothing it would be written back.
  const isUnreadable = (field) => hasFocus(field) && isNumber(field) && field.validity.badInput;

  for (const { prototype } of [HTMLInputElement, HTMLTextAreaElement]) {
    const { get, set, ...rest } = Object.getOwnPropertyDescriptor(prototype, "value");
    Object.defineProperty(prototype, "value", {
      ...rest,
      get,
      set(value) {
        if (textOf(value) === "" && isUnreadable(this)) return;
        if (!isLate(this, value)) return set.call(this, value);
        if (Number(value) !== this.valueAsNumber) setTimeout(sound, 0, this); // Gradio is to have what stands there
      },
    });
  }

  window.typing = { mayWrite };
})();
