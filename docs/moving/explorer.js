// Lesson 03: the maps of the trained models; choose text, model, layer and head.
"use strict";

moving.draw.explorer = (box, { texts }) => {
  const models = Object.keys(texts[0].maps), first = texts[0].maps[models[0]];
  const chosen = { text: 0, model: 0, layer: 0, head: 0 };
  const views = texts.map(({ tokens }) => moving.map(tokens.length, tokens));
  const [curve, line] = moving.curve();
  const panels = moving.html("div", { class: "panels" });
  const words = moving.html("figcaption", { "aria-live": "polite" });

  const show = () => {
    const [map, shade] = views[chosen.text];
    const { map: packed, mass, sentence } = texts[chosen.text].maps[models[chosen.model]][chosen.layer][chosen.head];
    const roots = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    shade((t, s) => roots[(t * (t + 1)) / 2 + s] / 255); // the root of a share: small ones are seen
    line(mass);
    if (map.parentNode !== panels) panels.replaceChildren(map, curve);
    words.textContent = sentence;
    for (const panel of [map, curve]) panel.setAttribute("aria-label", sentence);
  };
  const choice = (name, options) => moving.choice(name, options, (place) => {
    chosen[name] = place;
    show();
  });
  box.append(
    choice("text", texts.map(({ tokens }) => `${tokens.length} tokens`)), choice("model", models),
    choice("layer", first.map((_, layer) => layer)), choice("head", first[0].map((_, head) => head + 1)),
    moving.html("figure", {}, panels, words),
  );
  show();
};
