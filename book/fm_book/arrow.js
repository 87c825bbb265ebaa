/** The arrow of the live field and of the playground. */

/**
 * Make a canvas' path an arrow along the x axis, its middle at the origin.
 *
 * @param {CanvasRenderingContext2D} pen
 * @param {number} length from tail to tip; an arrow shorter than its head is all head
 * @param {{ head: number, wing: number, shaft: number }} size length of the head, and half its and the shaft's width
 */
export function arrowPath(pen, length, { head, wing, shaft }) {
  const [tail, tip] = [-length / 2, length / 2];
  const neck = tip - Math.min(head, length);
  pen.beginPath();
  pen.moveTo(tail, -shaft);
  pen.lineTo(neck, -shaft);
  pen.lineTo(neck, -wing);
  pen.lineTo(tip, 0);
  pen.lineTo(neck, wing);
  pen.lineTo(neck, shaft);
  pen.lineTo(tail, shaft);
  pen.closePath();
}
