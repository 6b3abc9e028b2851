// Shows the test of two rows; every figure was computed beforehand and stands in the page.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("pairs").textContent);
  const [form, result] = ["compare", "result"].map((id) => document.getElementById(id));
  const [selectA, selectB] = ["row-a", "row-b"].map((id) => document.getElementById(id));
  const labels = data.rows.map((row) => row.label);
  const pairs = new Map(data.pairs.map((pair) => [`${pair[0]} ${pair[1]}`, pair]));

  const signed = (value, digits) => (value < 0 ? "-" : "+") + Math.abs(value).toFixed(digits);
  const small = (p) => (p === null ? "not tested" : p < 0.0001 ? p.toExponential(1) : p.toFixed(4));
  const whole = (count) => count.toLocaleString("en");

  // The test of two rows with A first, whichever way round the page holds it.
  function find(a, b) {
    const straight = pairs.get(`${a} ${b}`);
    const pair = straight ?? pairs.get(`${b} ${a}`);
    const found = Object.fromEntries(data.fields.map((name, place) => [name, pair[place]]));
    if (straight) {
      return found;
    }
    const minus = (value) => (value === null ? null : -value);
    const otherSide = (note) => note.replace(/\((A|B)\)$/, (_, side) => `(${side === "A" ? "B" : "A"})`);
    return {
      ...found,
      est: minus(found.est), low: minus(found.high), high: minus(found.low), t: minus(found.t),
      relative: found.reverse, relative_low: found.reverse_low, relative_high: found.reverse_high,
      won: found.lost, lost: found.won, win_share: 1 - found.win_share, d_z: minus(found.d_z),
      notes: found.notes.map(otherSide),
    };
  }

  function verdict(test, a, b) {
    if (test.p_adjusted === null) {
      return "No verdict: this pair is not tested.";
    }
    if (test.p_adjusted >= data.alpha) {
      return "Not separated.";
    }
    const better = test.est > 0 ? a : b;
    const close = test.relative !== null && Math.abs(test.relative) < data.rope;
    const limit = `${100 * data.rope} %`;
    return `${better.label} is better${close ? `, but by less than ${limit}` : ""}.`;
  }

  function facts(test) {
    const level = `${Math.round(100 * (1 - data.alpha))} %`;
    const total = test.won + test.tied + test.lost;
    const share = (count) => `${whole(count)} (${((100 * count) / total).toFixed(1)} %)`;
    const relative = test.relative === null ? "not defined" : `${signed(100 * test.relative, 1)} %` +
      (test.relative_low === null || test.relative_high === null ? "" :
        ` [${signed(100 * test.relative_low, 1)}, ${signed(100 * test.relative_high, 1)}]`);
    const lines = [
      [`Difference A - B [${level}]`,
        `${signed(test.est, 5)} [${signed(test.low, 5)}, ${signed(test.high, 5)}]`],
      [`A / B - 1 [${level}]`, relative],
      [`p, corrected (${data.correction}, ${data.tests} tests)`, small(test.p_adjusted)],
      ["p, not corrected", small(test.p)],
      ["t (df)", test.t === null || test.df === null ? "not defined" :
        `${test.t.toFixed(3)} (${test.df.toFixed(1)})`],
      ["Standard error", test.se.toFixed(6)],
      ["Share of its square from users",
        test.users_share === null ? "not defined" : `${(100 * test.users_share).toFixed(0)} %`],
      ["Users for whom A is better", share(test.won)],
      ["Users for whom both are equal", share(test.tied)],
      ["Users for whom B is better", share(test.lost)],
      ["P(A better for a random user), ties half", test.win_share.toFixed(4)],
      ["Effect size d_z over users", test.d_z === null ? "not defined" : signed(test.d_z, 4)],
    ];
    return test.notes.length ? [...lines, ["Note", test.notes.join("; ")]] : lines;
  }

  function element(tag, text, ...children) {
    const made = document.createElement(tag);
    made.append(...(text === null ? children : [text]));
    return made;
  }

  function table(caption, headings, rows, kind = "") {
    const box = element("div", null);
    box.className = "scroll";
    const made = element("table", null, element("caption", caption));
    made.className = kind;
    if (headings.length) {
      const cells = headings.map((text) => element("th", text));
      cells.forEach((cell) => { cell.scope = "col"; });
      made.append(element("thead", null, element("tr", null, ...cells)));
    }
    const body = element("tbody", null);
    for (const [first, ...others] of rows) {
      const heading = element("th", first);
      heading.scope = "row";
      const cells = others.map((text) => element("td", text));
      cells.forEach((cell) => { cell.className = "number"; });
      body.append(element("tr", null, heading, ...cells));
    }
    made.append(body);
    box.append(made);
    return box;
  }

  function show() {
    const [x, y] = [selectA, selectB].map((select) => Number(select.value));
    const [a, b] = [data.rows[x], data.rows[y]];
    if (x === y) {
      result.replaceChildren(element("p", "Choose two different rows."));
      return;
    }
    const test = find(x, y);
    const means = [["A", a], ["B", b]].map(([side, row]) => [
      `${side}: ${row.label}`,
      row.mean.toFixed(4) + (row.std === null ? "" : ` ± ${row.std.toFixed(4)}`),
      String(row.seeds), row.tier === null ? "-" : String(row.tier),
    ]);
    const sentence = element("p", verdict(test, a, b));
    sentence.className = "verdict";
    result.replaceChildren(
      sentence,
      table("The two rows", ["row", data.metric, "seeds", "tier"], means),
      table(`A against B, ${data.metric}`, [], facts(test), "facts"),
    );
  }

  // `#a=LABEL&b=LABEL` names the pair, so that it can be linked to.
  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const place = (name, other) => {
      const found = labels.indexOf(wanted.get(name));
      return found < 0 ? other : found;
    };
    const reference = Math.max(labels.indexOf(data.reference), 0);
    const b = place("b", reference);
    const a = place("a", b === 0 ? 1 : 0);
    selectA.value = String(a);
    selectB.value = String(b);
    show();
  }

  function writeAddress() {
    const chosen = { a: labels[selectA.value], b: labels[selectB.value] };
    history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
    show();
  }

  for (const select of [selectA, selectB]) {
    select.append(...labels.map((label, place) => new Option(label, String(place))));
    select.addEventListener("change", writeAddress);
  }
  document.getElementById("swap").addEventListener("click", () => {
    [selectA.value, selectB.value] = [selectB.value, selectA.value];
    writeAddress();
  });
  window.addEventListener("hashchange", readAddress);
  form.hidden = false;
  readAddress();
})();
