/**
 * A reader of the pickles that `torch.save` writes for a dictionary of tensors. It is no pickle
 * machine: it knows the opcodes of protocol 2 that build data, looks nothing up and calls nothing.
 * The few functions that a pickle may name are what this file makes of them. Format:
 * Lib/pickletools.py of CPython; what torch puts into it: `torch/_utils.py`, `torch/serialization.py`.
 */
import {
  DICTIONARY,
  damaged,
  globalOf,
  isKind,
  PARAMETER,
  type PickledValue,
  PickleProblem,
  parameterOf,
  storageOf,
  TENSOR,
  tensorOf,
} from './pickled-value.ts';

/** Names of classes and functions are a line each. */
const LINE_LENGTH_MAX = 200;

/** @throws PickleProblem */
export function unpickle(bytes: Uint8Array): PickledValue {
  return new Unpickler(bytes).run();
}

class Unpickler {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #stack: PickledValue[] = [];
  /** Heights of the stack. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickledValue>();
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): PickledValue {
    for (;;) {
      const opcode = this.#bytes[this.#take(1)]!;
      // STOP
      if (opcode === 0x2e) break;
      const step = OPCODES.get(opcode);
      if (step === undefined) {
        throw new PickleProblem(
          'unsupported',
          `it has the opcode 0x${opcode.toString(16).padStart(2, '0')} at byte ${this.#at - 1}, ` +
            'which torch.save does not write for tensors',
        );
      }
      step(this);
    }
    const value = this.pop();
    if (this.#stack.length > 0 || this.#marks.length > 0) throw damaged('it ends in the middle');
    return value;
  }

  push(value: PickledValue): void {
    this.#stack.push(value);
  }

  pop(): PickledValue {
    const isThere = this.#stack.length > (this.#marks.at(-1) ?? 0);
    const value = isThere ? this.#stack.pop() : undefined;
    if (value === undefined) throw damaged('it takes what is not there');
    return value;
  }

  top(): PickledValue {
    const value = this.pop();
    this.push(value);
    return value;
  }

  mark(): void {
    this.#marks.push(this.#stack.length);
  }

  /** All above the last mark. */
  popToMark(): PickledValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw damaged('it takes what is not there');
    return this.#stack.splice(mark);
  }

  remember(index: number): void {
    this.#memo.set(index, this.top());
  }

  recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw damaged('it recalls what was not remembered');
    this.push(value);
  }

  uint8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  int32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#take(8), false);
  }

  /** Little-endian two's complement. */
  long(): number {
    const length = this.uint8();
    const begin = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = value * 256n + BigInt(this.#bytes[begin + i]!);
    const signed = Number(BigInt.asIntN(8 * length, value));
    if (!Number.isSafeInteger(signed)) throw damaged('it has a number without end');
    return signed;
  }

  text(): string {
    const length = this.uint32();
    const begin = this.#take(length);
    try {
      const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
      return utf8.decode(this.#bytes.subarray(begin, begin + length));
    } catch {
      throw damaged('it has text that is not UTF-8');
    }
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0 || end - this.#at > LINE_LENGTH_MAX) throw damaged('it has a name without end');
    const begin = this.#take(end + 1 - this.#at);
    return new TextDecoder('latin1').decode(this.#bytes.subarray(begin, end));
  }

  #take(count: number): number {
    const begin = this.#at;
    if (begin + count > this.#bytes.length) throw damaged('it ends too early');
    this.#at = begin + count;
    return begin;
  }
}

type Step = (machine: Unpickler) => void;

const OPCODES: ReadonlyMap<number, Step> = new Map<number, Step>([
  // PROTO
  [0x80, (m) => checkProtocol(m.uint8())],
  // MARK, EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT
  [0x28, (m) => m.mark()],
  [0x29, (m) => m.push({ kind: 'tuple', items: [] })],
  [0x5d, (m) => m.push({ kind: 'list', items: [] })],
  [0x7d, (m) => m.push({ kind: 'dictionary', entries: [] })],
  // NONE, NEWTRUE, NEWFALSE
  [0x4e, (m) => m.push(null)],
  [0x88, (m) => m.push(true)],
  [0x89, (m) => m.push(false)],
  // BININT, BININT1, BININT2, LONG1, BINFLOAT, BINUNICODE
  [0x4a, (m) => m.push(m.int32())],
  [0x4b, (m) => m.push(m.uint8())],
  [0x4d, (m) => m.push(m.uint16())],
  [0x8a, (m) => m.push(m.long())],
  [0x47, (m) => m.push(m.float64())],
  [0x58, (m) => m.push(m.text())],
  // TUPLE, TUPLE1, TUPLE2, TUPLE3
  [0x74, (m) => m.push({ kind: 'tuple', items: m.popToMark() })],
  [0x85, (m) => pushTuple(m, 1)],
  [0x86, (m) => pushTuple(m, 2)],
  [0x87, (m) => pushTuple(m, 3)],
  // APPEND, APPENDS, SETITEM, SETITEMS
  [0x61, (m) => append(m, [m.pop()])],
  [0x65, (m) => append(m, m.popToMark())],
  [0x73, (m) => setItems(m, [m.pop(), m.pop()].reverse())],
  [0x75, (m) => setItems(m, m.popToMark())],
  // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
  [0x71, (m) => m.remember(m.uint8())],
  [0x72, (m) => m.remember(m.uint32())],
  [0x68, (m) => m.recall(m.uint8())],
  [0x6a, (m) => m.recall(m.uint32())],
  // GLOBAL, REDUCE, BUILD, BINPERSID
  [0x63, (m) => m.push(globalOf(m.line(), m.line()))],
  [0x52, (m) => reduce(m)],
  [0x62, (m) => build(m)],
  [0x51, (m) => m.push(storageOf(m.pop()))],
]);

function checkProtocol(protocol: number): void {
  if (protocol === 2) return;
  throw new PickleProblem('unsupported', `it is of protocol ${protocol}; torch.save writes 2`);
}

function pushTuple(machine: Unpickler, count: number): void {
  const items = Array.from({ length: count }, () => machine.pop());
  machine.push({ kind: 'tuple', items: items.reverse() });
}

function append(machine: Unpickler, items: readonly PickledValue[]): void {
  const list = machine.top();
  if (!isKind(list, 'list')) throw damaged('it appends to what is no list');
  for (const item of items) list.items.push(item);
}

function setItems(machine: Unpickler, items: readonly PickledValue[]): void {
  const dictionary = machine.top();
  if (!isKind(dictionary, 'dictionary') || items.length % 2 !== 0) {
    throw damaged('it sets items of what is no dictionary');
  }
  for (let i = 0; i < items.length; i += 2) dictionary.entries.push([items[i]!, items[i + 1]!]);
}

function reduce(machine: Unpickler): void {
  const given = machine.pop();
  const called = machine.pop();
  if (!isKind(given, 'tuple') || !isKind(called, 'global')) {
    throw damaged('it calls what is no function');
  }
  if (called.name === TENSOR) machine.push(tensorOf(given.items));
  else if (called.name === PARAMETER) machine.push(parameterOf(given.items));
  else if (called.name === DICTIONARY && given.items.length === 0) {
    machine.push({ kind: 'dictionary', entries: [] });
  } else throw new PickleProblem('unsupported', `it calls ${called.name} as torch.save does not`);
}

/** The state of an ordered dictionary is `_metadata`: versions of modules, of no use here. */
function build(machine: Unpickler): void {
  machine.pop();
  if (!isKind(machine.top(), 'dictionary')) {
    throw new PickleProblem('unsupported', 'it gives a state to what is no dictionary');
  }
}
