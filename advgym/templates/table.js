// Tables that a reader can order and narrow down (`data-table`); without this file they stay as they were written.
for (const table of document.querySelectorAll("table[data-table]")) {
  const heads = [...[...table.tHead.rows].at(-1).cells];
  const groups = [...table.tBodies].map((body) => [body, [...body.rows].filter((row) => !row.matches(".band"))]);
  const rows = groups.flatMap(([, inside]) => inside);
  const words = (row, i) => row.cells[i]?.dataset.value ?? row.cells[i]?.textContent.trim() ?? "";
  const number = (text) => (/^[<≥≤]?\s*[-−+]?\d/.test(text) ? parseFloat(text.replace("−", "-").replace(/[<≥≤,]/g, "")) : NaN);

  function order(i, turn) {
    const by = (a, b) => {
      const [x, y] = [words(a, i), words(b, i)], [n, m] = [number(x), number(y)];
      if (Number.isNaN(n) !== Number.isNaN(m)) return Number.isNaN(n) ? 1 : -1; // what has no figure comes last
      return turn * (Number.isNaN(n) ? x.localeCompare(y) : n - m);
    };
    const flat = table.dataset.table === "flat" && turn;
    for (const [body, inside] of groups) body.append(...(turn && !flat ? inside.toSorted(by) : inside));
    if (flat) groups[0][0].append(...rows.toSorted(by));
  }

  heads.forEach((head, i) => {
    if (head.matches("[data-still]")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = rows.some((row) => !Number.isNaN(number(words(row, i)))) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const now = head.ariaSort === first ? other : head.ariaSort === other ? "none" : first;
      for (const one of heads) one.removeAttribute("aria-sort");
      if (now !== "none") head.ariaSort = now;
      order(i, { ascending: 1, descending: -1, none: 0 }[now]);
    });
  });

  if (!table.matches("[data-filter]") || rows.length < 2) continue;
  const bar = document.createElement("div");
  bar.className = "narrow-down";
  bar.setAttribute("role", "search");
  const note = document.createElement("output");
  const field = (title, control) => {
    const label = document.createElement("label");
    label.append(title, control);
    bar.append(label);
    control.addEventListener("input", narrow);
    return control;
  };
  const input = Object.assign(document.createElement("input"), { type: "search" });
  function narrow() {
    const asked = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = asked.every((word) => text.includes(word)) && picks.every(([i, s]) => !s.value || words(row, i) === s.value);
      row.hidden = !fits;
      left += fits;
    }
    note.textContent = `${left} of ${rows.length}`;
  }
  field("Filter", input);
  const picks = heads.flatMap((head, i) => {
    if (!head.matches("[data-pick]")) return [];
    const found = [...new Set(rows.map((row) => words(row, i)))].sort();
    if (found.length < 2) return [];
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...found.map((word) => new Option(word, word)));
    return [[i, field(head.textContent.trim(), select)]];
  });
  bar.append(note);
  narrow();
  (table.closest(".scroll") ?? table).before(bar);
}
