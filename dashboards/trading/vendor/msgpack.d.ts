/** Of `@msgpack/msgpack`: what the client uses. */
export class Encoder {
  encode(value: unknown): Uint8Array;
}
export class Decoder {
  decode(bytes: ArrayLike<number>): unknown;
}
