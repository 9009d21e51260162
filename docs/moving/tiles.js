// Lesson 07: chunk after chunk, what is loaded, what the state brings, how the state changes.
"use strict";

moving.draw.tiles = (box, { text, size, names, states, moments }) => {
  const n = text.length, step = 100 / n, cell = 100 / names.length;
  const top = Math.max(...states.flat(2));
  const map = moving.panel("-26 -4 132 132"), table = moving.panel("-26 -4 132 132");

  const border = [];
  for (let i = size; i < n; i += size) border.push(`M0 ${i * step}H100M${i * step} 0V100`);
  const now = moving.svg("rect", { class: "cell" }), held = moving.svg("rect", { class: "held" });
  map.append(moving.svg("rect", { class: "past", width: 100, height: 100 }), held, now,
    moving.svg("path", { class: "grid", d: border.join("") }), moving.svg("path", { class: "line", d: "M0 0L100 100" }));
  [...text].forEach((letter, i) => {
    map.append(moving.text((i + 0.5) * step, 107, letter, { "text-anchor": "middle" }));
    map.append(moving.text(-6, (i + 0.5) * step + 2, letter, { "text-anchor": "middle" }));
  });
  map.append(moving.text(50, 117, "keys and values s", { "text-anchor": "middle" }));
  map.append(moving.text(-15, 50, "queries t", { "text-anchor": "middle", transform: "rotate(-90 -15 50)" }));

  const shades = [], numbers = [];
  names.forEach((name, i) => {
    table.append(moving.text(-6, (i + 0.5) * cell + 2, name, { "text-anchor": "middle" }));
    table.append(moving.text((i + 0.5) * cell, 107, name, { "text-anchor": "middle" }));
    names.forEach((_, j) => {
      const place = { x: j * cell, y: i * cell, width: cell, height: cell };
      table.append(moving.svg("rect", { class: "past framed", ...place }));
      shades.push(table.appendChild(moving.svg("rect", { class: "cell", ...place })));
      numbers.push(moving.text((j + 0.5) * cell, (i + 0.5) * cell + 2.2, "", { class: "number", "text-anchor": "middle" }));
    });
  });
  table.append(...numbers, moving.text(50, 117, "state: value (column)", { "text-anchor": "middle" }));
  table.append(moving.text(-15, 50, "key (row)", { "text-anchor": "middle", transform: "rotate(-90 -15 50)" }));

  const put = (rect, x, y, width, height) =>
    Object.entries({ x, y, width, height }).forEach(([key, tokens]) => rect.setAttribute(key, tokens * step));
  const say = moving.figure(box, [map, table]);
  const show = (place) => {
    const { chunk, moment, sentence } = moments[place], start = chunk * size;
    const rows = Math.min(size, n - start);
    put(now, start, start, rows, rows);
    put(held, 0, start, start, rows);
    held.style.display = moment > 0 ? "" : "none";
    states[chunk + (moment === 2)].flat().forEach((value, i) => {
      shades[i].style.fillOpacity = value / top;
      numbers[i].textContent = value >= 0.05 ? value.toFixed(1) : "";
    });
    say(sentence);
  };
  moving.slider(box, "moment", moments.length - 1, 4, (place) => `${place + 1} of ${moments.length}`, show);
};
