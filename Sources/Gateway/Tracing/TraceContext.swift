import HTTPCore

/// Which trace something belongs to, and which span of it: what `traceparent` says, in both directions.
///
///     let received = TraceContext(request.headers)                        // the client's span, if there is one
///     let own = received?.child() ?? TraceContext.make(sampled: true)     // that of the request
///     let call = own.child()                                              // that of a call to a backend
///     call.name(in: &headers)                                             // which gets to know of it
///
/// Source: W3C Trace Context, https://www.w3.org/TR/trace-context/; the flag `random` is of its level 2.
struct TraceContext: Sendable, Hashable {
    /// 16 bytes, of which not all are zero.
    struct TraceID: Sendable, Hashable {
        let high: UInt64
        let low: UInt64
    }

    let traceID: TraceID
    /// Not zero. In what a client sent: of its own span, which is the parent of those made here.
    let spanID: UInt64
    /// ``sampled`` and ``random``; all others are zero, as they have no meaning yet.
    let flags: UInt8

    /// Somebody may keep this trace.
    static let sampled: UInt8 = 1
    /// The trace's id is random in its last seven bytes.
    static let random: UInt8 = 2

    var isSampled: Bool { flags & TraceContext.sampled != 0 }

    private init(_ traceID: TraceID, _ spanID: UInt64, _ flags: UInt8) {
        (self.traceID, self.spanID, self.flags) = (traceID, spanID, flags)
    }

    // MARK: Making

    /// The first span of a new trace.
    static func make(sampled: Bool) -> TraceContext {
        var random = SystemRandomNumberGenerator()
        return make(sampled: sampled, using: &random)
    }

    static func make(sampled: Bool, using random: inout some RandomNumberGenerator) -> TraceContext {
        let id = TraceID(high: random.next(), low: .random(in: 1...UInt64.max, using: &random))
        return TraceContext(
            id, .random(in: 1...UInt64.max, using: &random), TraceContext.random | (sampled ? TraceContext.sampled : 0))
    }

    /// Another span of the same trace.
    func child() -> TraceContext { TraceContext(traceID, .random(in: 1...UInt64.max), flags) }

    // MARK: Reading

    /// What a request's header says; nil if that is nothing, not valid, or more than one thing: then a new trace
    /// begins.
    init?(_ headers: Headers) {
        var found: String?
        for field in headers.fields where Headers.same(field.name, TraceContext.parentField) {
            guard found == nil else { return nil }
            found = field.value
        }
        guard let found else { return nil }
        self.init(traceparent: found)
    }

    /// Reads `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`; nil if that is not valid. Of a version that
    /// is not known yet it reads what this one has, which is how all versions begin.
    init?(traceparent text: String) {
        var text = text
        guard let context = text.withUTF8({ TraceContext.read(UnsafeRawBufferPointer($0)) }) else { return nil }
        self = context
    }

    /// Bytes of a `traceparent` of version 00.
    private static let length = 55

    private static func read(_ text: UnsafeRawBufferPointer) -> TraceContext? {
        let dash = UInt8(ascii: "-")
        guard text.count >= length, text[2] == dash, text[35] == dash, text[52] == dash,
            let version = number(text[0..<2]), version != 0xff,
            text.count == length || (version > 0 && text[length] == dash),
            let high = number(text[3..<19]), let low = number(text[19..<35]), high | low != 0,
            let span = number(text[36..<52]), span != 0, let flags = number(text[53..<55])
        else { return nil }
        // Of a version to come only this flag is known to mean what it does here.
        let known = version == 0 ? sampled | random : sampled
        return TraceContext(TraceID(high: high, low: low), span, UInt8(flags) & known)
    }

    /// Hexadecimal in lower case, and nothing else.
    private static func number(_ digits: Slice<UnsafeRawBufferPointer>) -> UInt64? {
        var number: UInt64 = 0
        for byte in digits {
            switch byte {
            case 0x30...0x39: number = number << 4 | UInt64(byte - 0x30)
            case 0x61...0x66: number = number << 4 | UInt64(byte - 0x57)
            default: return nil
            }
        }
        return number
    }

    // MARK: Writing

    private static let parentField = "traceparent"
    private static let stateField = "tracestate"

    /// Of version 00.
    var traceparent: String {
        String(unsafeUninitializedCapacity: TraceContext.length) { bytes in
            bytes.initialize(repeating: UInt8(ascii: "-"))
            TraceContext.write(0, to: bytes, at: 0, bytes: 1)
            TraceContext.write(traceID.high, to: bytes, at: 3)
            TraceContext.write(traceID.low, to: bytes, at: 19)
            TraceContext.write(spanID, to: bytes, at: 36)
            TraceContext.write(UInt64(flags), to: bytes, at: 53, bytes: 1)
            return TraceContext.length
        }
    }

    /// Names this span in the header of a call, which begins as that of the request it is made for: `traceparent` is
    /// replaced, and `tracestate` stays if it belongs to this trace and goes if not.
    func name(in headers: inout Headers) {
        if TraceContext(headers)?.traceID != traceID { headers.remove(TraceContext.stateField) }
        headers.set(TraceContext.parentField, traceparent)
    }

    /// Digits of a number's last bytes, in lower case and with leading zeros.
    private static func write(
        _ number: UInt64, to text: UnsafeMutableBufferPointer<UInt8>, at start: Int, bytes: Int = 8
    ) {
        let count = bytes * 2
        for place in 0..<count {
            let digit = UInt8(truncatingIfNeeded: number >> UInt64(4 * (count - 1 - place))) & 0xf
            text[start + place] = digit < 10 ? 0x30 + digit : 0x57 + digit
        }
    }

    /// 16 digits, as ids are written.
    static func hex(_ number: UInt64) -> String {
        String(unsafeUninitializedCapacity: 16) { bytes in
            write(number, to: bytes, at: 0)
            return 16
        }
    }
}

extension TraceContext.TraceID: CustomStringConvertible {
    /// 32 digits.
    var description: String { TraceContext.hex(high) + TraceContext.hex(low) }
}
