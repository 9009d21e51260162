// Lesson 04: one rate, its mask M_ts = exp(-r (t - s)), and where the mask's mass lies.
"use strict";

moving.draw.decay = (box, { tokens, start, positions }) => {
  const [map, shade] = moving.map(tokens, moving.numbers(tokens));
  const [curve, line] = moving.curve();
  map.append(moving.text(50, 117, "token s (number)", { "text-anchor": "middle" }));
  map.append(moving.text(-15, 50, "token t (number)", { "text-anchor": "middle", transform: "rotate(-90 -15 50)" }));
  const say = moving.figure(box, [map, curve]);
  moving.slider(box, "rate", positions.length - 1, start, (place) => `${positions[place].rate}`, (place) => {
    const { rate, mass, sentence } = positions[place];
    shade((t, s) => Math.exp(-rate * (t - s)));
    line(mass);
    say(sentence);
  });
};
