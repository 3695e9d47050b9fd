/** A peer's text, fit for a terminal: nothing in it moves the cursor, turns the direction or ends the line. */
export const printable = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "?");
