/** A node's log: the entries behind a base, committed up to an index. What is cut off it is handed out. */

/** What one append carries at most. */
const MAX_ENTRIES = 256;
const MAX_BATCH_BYTES = 1024 * 1024;

/** The least that the rules must know of an entry. */
export interface LogEntry {
  readonly term: number;
  /** The ids of all nodes from this entry on, where it changes them. */
  readonly members?: readonly number[];
  readonly sizeBytes?: number;
}

/** What came before the log: it is committed and applied, and nobody asks for it by entries any more. */
export interface Base {
  readonly index: number;
  readonly term: number;
  readonly members: readonly number[];
}

export class Log<E extends LogEntry> {
  base: Base;
  log: E[];
  commit: number;
  /** On disk up to here. */
  protected savedIndex: number;
  /** The nodes as of the latest entry that says so, committed or not. */
  members: readonly number[] = [];
  #cut: E[] = [];

  constructor(base: Base, entries: readonly E[]) {
    this.base = base;
    this.log = [...entries];
    this.commit = base.index;
    this.savedIndex = this.lastIndex;
    this.#findMembers();
  }

  /** It is asked for at every message: looked up only where entries came or went. */
  #findMembers(): void {
    this.members = this.log.findLast((entry) => entry.members !== undefined)?.members ?? this.base.members;
  }

  get lastIndex(): number {
    return this.base.index + this.log.length;
  }
  get lastTerm(): number {
    return this.log.at(-1)?.term ?? this.base.term;
  }

  entry(index: number): E | undefined {
    return this.log[index - this.base.index - 1];
  }
  /** Undefined where it is not known, or not any more. */
  termAt(index: number): number | undefined {
    return index === this.base.index ? this.base.term : this.entry(index)?.term;
  }

  /** Entries that were cut off: they were never committed, and another master's stand in their place. */
  takeCut(): E[] {
    return this.#cut.splice(0);
  }

  /** Forgets entries up to `index`, which must be applied. */
  compact(index: number): void {
    const term = this.termAt(index);
    if (index <= this.base.index || index > this.commit || term === undefined) return;
    const kept = index - this.base.index;
    const members = this.log.slice(0, kept).findLast((entry) => entry.members)?.members ?? this.base.members;
    this.base = { index, term, members };
    this.log.splice(0, kept);
  }

  /** Begins at a base that was copied from the master, with whom the log agrees up to `agreed` at least. */
  protected startFrom(base: Base, agreed: number): void {
    if (this.termAt(base.index) === base.term) this.log.splice(0, base.index - this.base.index);
    else {
      this.log.splice(0, agreed - this.base.index);
      this.#cut.push(...this.log.splice(0));
    }
    this.base = base;
    this.commit = base.index;
    this.savedIndex = Math.min(this.savedIndex, this.lastIndex);
    this.#findMembers();
  }

  protected append(entry: E): void {
    this.log.push(entry);
    this.members = entry.members ?? this.members;
  }

  /** Puts the entries behind `prevIndex`, in place of any that differ. */
  protected take(prevIndex: number, entries: readonly E[]): void {
    const known = entries.findIndex((entry, i) => this.termAt(prevIndex + 1 + i) !== entry.term);
    if (known < 0) return;
    const at = prevIndex + 1 + known;
    if (at <= this.commit) throw new Error(`entry ${at} is committed and would be replaced`);
    this.#cut.push(...this.log.splice(at - this.base.index - 1));
    this.log.push(...entries.slice(known));
    this.savedIndex = Math.min(this.savedIndex, at - 1);
    this.#findMembers();
  }

  /** As many entries from this one on as one append carries. */
  batch(from: number): E[] {
    const first = from - this.base.index - 1;
    let sizeBytes = 0;
    let end = first;
    while (end < this.log.length && end - first < MAX_ENTRIES && sizeBytes < MAX_BATCH_BYTES)
      sizeBytes += this.log[end++]?.sizeBytes ?? 0;
    return this.log.slice(first, end);
  }
}
