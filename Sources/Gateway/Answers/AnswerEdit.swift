import HTTPCore

/// Changes to an answer that keep its form: all else stays byte for byte.
struct AnswerEdit {
    /// What to put in the place of the model's name.
    let model: String?
    /// Whether to leave out what is only told to those who ask for usage.
    let dropsUsage: Bool

    /// Of an answer that is one object.
    func whole(_ bytes: UnsafeRawBufferPointer) throws -> Bytes {
        var output = output(for: bytes)
        try append(bytes, to: &output)
        return output.finish()
    }

    /// Of a stream of lines.
    func lines(_ bytes: UnsafeRawBufferPointer) throws -> Bytes {
        var output = output(for: bytes)
        var copied = 0
        for line in AnswerLines(bytes) where !bytes.part(line).isBlank {
            output.append(bytes.part(copied..<line.lowerBound))
            try append(bytes.part(line), to: &output)
            copied = line.upperBound
        }
        output.append(bytes.part(copied..<bytes.count))
        return output.finish()
    }

    /// Of a stream of events.
    func events(_ bytes: UnsafeRawBufferPointer) throws -> Bytes {
        var output = output(for: bytes)
        for event in AnswerEvents(bytes) {
            if event.isStrange { throw NotAnAnswer() }
            guard let data = event.data, !event.isLast(in: bytes) else {
                output.append(bytes.part(event.range))
                continue
            }
            // What comes before the data stays only if the event does.
            var edited = ByteBuffer()
            edited.append(bytes.part(event.range.lowerBound..<data.lowerBound))
            guard try append(bytes.part(data), to: &edited) else { continue }
            output.append(edited.unread)
            output.append(bytes.part(data.upperBound..<event.range.upperBound))
        }
        return output.finish()
    }

    private func output(for bytes: UnsafeRawBufferPointer) -> ByteBuffer {
        var output = ByteBuffer()
        output.reserve(bytes.count + 256)
        return output
    }

    /// - Returns: false if nothing is left of it.
    @discardableResult
    private func append(_ json: UnsafeRawBufferPointer, to output: inout ByteBuffer) throws -> Bool {
        try JSONDocument.read(json) { root in
            guard root.kind == .object else { throw NotAnAnswer() }
            var cut: Range<Int>?
            if dropsUsage {
                switch UsageMember(in: root) {
                case .absent: break
                case .wholeEvent: return false
                case .range(let range): cut = range
                }
            }
            var copied = 0
            func copy(upTo place: Int, goOnAt next: Int) {
                output.append(json.part(copied..<place))
                copied = next
            }
            for (name, value) in root.members {
                if let range = cut, range.lowerBound <= name.range.lowerBound {
                    copy(upTo: range.lowerBound, goOnAt: range.upperBound)
                    cut = nil
                }
                guard let model, name.equals("model") else { continue }
                copy(upTo: value.range.lowerBound, goOnAt: value.range.upperBound)
                output.append(quoted: model)
            }
            output.append(json.part(copied..<json.count))
            return true
        }
    }
}
