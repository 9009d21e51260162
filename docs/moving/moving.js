// What the moving pictures share: a map in shades, a curve, and controls that a keyboard can move.
// A page has <div class="moving" data-picture="NAME">; NAME.js says how it is drawn, NAME-data.js of what.
"use strict";

const moving = {
  draw: {}, // NAME -> function (box, data), from NAME.js

  data(name, data) {
    for (const box of document.querySelectorAll(`.moving[data-picture="${name}"]`)) {
      box.replaceChildren();
      moving.draw[name](box, data);
    }
  },

  html(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  },

  svg(name, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  },

  text(x, y, words, attributes = {}) {
    return moving.svg("text", { x, y, ...attributes }, words);
  },

  // The figure: panels side by side, below them its sentence, which is also read aloud.
  figure(box, panels) {
    const words = moving.html("figcaption", { "aria-live": "polite" });
    box.append(moving.html("figure", {}, moving.html("div", { class: "panels" }, ...panels), words));
    return (sentence) => {
      words.textContent = sentence;
      for (const panel of panels) panel.setAttribute("aria-label", sentence);
    };
  },

  // A slider over positions 0 ... last; `said(position)` is what it says.
  slider(box, label, last, start, said, moved) {
    const input = moving.html("input", { type: "range", min: 0, max: last, step: 1, value: start });
    const output = moving.html("output");
    const show = () => {
      output.textContent = said(+input.value);
      input.setAttribute("aria-valuetext", output.textContent);
      moved(+input.value);
    };
    input.addEventListener("input", show);
    box.prepend(moving.html("label", { class: "slider" }, `${label} `, input, output));
    show();
  },

  // One of several: radio buttons, which the arrow keys walk through.
  choice(name, options, moved) {
    const set = moving.html("fieldset", {}, moving.html("legend", {}, name));
    const group = `${name}-${document.querySelectorAll(".moving fieldset").length}-${Math.random()}`;
    options.forEach((option, place) => {
      const input = moving.html("input", { type: "radio", name: group });
      input.checked = place === 0;
      input.addEventListener("change", () => moved(place));
      set.append(moving.html("label", {}, input, moving.html("span", {}, `${option}`)));
    });
    return set;
  },

  panel(viewBox) {
    return moving.svg("svg", { viewBox, role: "img" });
  },

  // A causal map of n x n cells; the function it returns sets shade(t, s) of each, from 0 to 1.
  map(n, names) {
    const panel = moving.panel("-26 -4 132 132"), step = 100 / n, cells = [];
    panel.append(moving.svg("rect", { class: "future", width: 100, height: 100 }));
    for (let t = 0; t < n; t++) {
      panel.append(moving.svg("rect", { class: "past", y: t * step, width: (t + 1) * step, height: step }));
      for (let s = 0; s <= t; s++) {
        const cell = { class: "cell", x: s * step, y: t * step, width: step, height: step };
        cells.push(panel.appendChild(moving.svg("rect", cell)));
      }
    }
    names.forEach((name, i) => {
      if (!name) return;
      const middle = (i + 0.5) * step;
      panel.append(moving.text(-2, middle + 1.5, name, { class: "small", "text-anchor": "end" }));
      const turned = { class: "small", "text-anchor": "end", transform: `rotate(-90 ${middle + 1.5} 102)` };
      panel.append(moving.text(middle + 1.5, 102, name, turned));
    });
    const set = (shade) => {
      let place = 0;
      for (let t = 0; t < n; t++)
        for (let s = 0; s <= t; s++) cells[place++].style.fillOpacity = shade(t, s);
    };
    return [panel, set];
  },

  numbers(n) { // names for a map whose tokens are numbered: 1, and some on the way to n
    return Array.from({ length: n }, (_, i) => (i === 0 || i === n - 1 || (i + 1) % 8 === 0 ? `${i + 1}` : ""));
  },

  // Local mass: percent of the tokens to the right, percent of the mass up; dotted is a flat map.
  curve() {
    const panel = moving.panel("-26 -4 132 132");
    for (const tick of [0, 40, 80]) {
      panel.append(moving.svg("path", { class: "grid", d: `M${tick} 0V100M0 ${100 - tick}H100` }));
      panel.append(moving.text(tick, 107, `${tick}`, { class: "small", "text-anchor": "middle" }));
      panel.append(moving.text(-2, 102 - tick, `${tick}`, { class: "small", "text-anchor": "end" }));
    }
    const line = moving.svg("polyline", { class: "curve" });
    panel.append(moving.svg("path", { class: "flat", d: "M0 100L100 0" }), line);
    panel.append(moving.text(50, 117, "nearest tokens (%)", { "text-anchor": "middle" }));
    const up = { "text-anchor": "middle", transform: "rotate(-90 -15 50)" };
    panel.append(moving.text(-15, 50, "mass in them (%)", up));
    const set = (mass) => {
      const points = mass.map((percent, i) => `${(100 * i) / (mass.length - 1)},${100 - percent}`);
      line.setAttribute("points", points.join(" "));
    };
    return [panel, set];
  },
};
