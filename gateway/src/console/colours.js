// A hue for each server. Owns nothing but the choice; lightness and strength belong to the theme
// (console.css), so a change of theme needs no drawing.

/** Far from each other while there are few; neighbours in the list are never alike. */
const HUES = [258, 168, 52, 318, 215, 95, 15, 285, 190, 130, 350, 70];

/** From the server's place in the ring's list; past the list, by the golden angle. */
export function hue(index) {
  return index < HUES.length ? HUES[index] : (index * 137.508) % 360;
}
