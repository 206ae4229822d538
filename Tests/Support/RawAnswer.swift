/// An answer as it came over the wire.
public struct RawAnswer: Sendable {
    /// Status line and fields, with the empty line.
    public let header: String
    public private(set) var body: [UInt8] = []
    /// The sizes of its chunks, if it was chunked.
    public private(set) var chunks: [Int] = []
    /// `.whole` if the body ended as its framing has it; one without framing ends by `.closed`.
    public private(set) var ending = RawSocket.Ending.whole

    public var text: String { String(decoding: body, as: UTF8.self) }

    /// 0 if nothing came that looks like an answer.
    public var status: Int { Int(header.dropFirst(9).prefix(3)) ?? 0 }

    /// All values under this name.
    public func values(_ name: String) -> [String] {
        // CR LF is one Character.
        header.split(separator: "\r\n").dropFirst().compactMap { line in
            guard let colon = line.firstIndex(of: ":"), line[..<colon].lowercased() == name.lowercased() else {
                return nil
            }
            return String(line[line.index(after: colon)...].drop { $0 == " " })
        }
    }

    public subscript(name: String) -> String? { values(name).first }

    init(from reader: inout RawReader, method: String) {
        self.init(header: String(decoding: reader.take(through: Array("\r\n\r\n".utf8)), as: UTF8.self))
        guard header.hasSuffix("\r\n\r\n") else {
            ending = reader.have(1)
            return
        }
        if method == "HEAD" || status < 200 || status == 204 || status == 304 { return }
        if self["Transfer-Encoding"] == "chunked" {
            (body, ending, chunks) = RawAnswer.chunked(&reader)
        } else {
            let length = self["Content-Length"].flatMap { Int($0) } ?? .max
            ending = reader.have(length)
            body = reader.take(min(length, reader.available))
        }
    }

    private init(header: String) { self.header = header }

    private static func chunked(_ reader: inout RawReader) -> ([UInt8], RawSocket.Ending, [Int]) {
        var body: [UInt8] = []
        var chunks: [Int] = []
        while true {
            let line = String(decoding: reader.take(through: [0x0d, 0x0a]), as: UTF8.self)
            guard line.hasSuffix("\r\n"), let length = Int(line.dropLast(), radix: 16) else {
                return (body, reader.have(1), chunks)
            }
            let ending = reader.have(length + 2)
            body += reader.take(min(length, reader.available))
            guard ending == .whole else { return (body, ending, chunks) }
            _ = reader.take(2)
            if length == 0 { return (body, .whole, chunks) }
            chunks.append(length)
        }
    }
}
