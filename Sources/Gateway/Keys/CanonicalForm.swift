import HTTPCore

/// Writes what a request asks, so that two requests have the same bytes exactly when Ollama would answer them alike.
///
/// The form: its version, the endpoint, the model, and an object of all fields that can change the answer, those
/// that say what their absence says left away. Objects are sorted by name but where the order reaches the model.
/// Two spellings that we do not know to be equal differ: that costs a hit, never a wrong answer.
struct CanonicalForm: ~Copyable {
    /// To be raised with every change of what is written: entries that outlive the program are keyed by it.
    private static let version = "1"

    /// A member that waits to be written, or (``FieldKind/element``) an array's element.
    struct Member {
        var name: MemberName
        var value: JSONNode
        var kind: FieldKind
    }

    /// What the fields at the top say besides their values.
    struct Findings {
        var hasModel = false
        var asks = false
        var hasTools = false
        var rendersOnly = false
        var unloads = false
    }

    var writer: CanonicalWriter
    /// The members of all objects that are being written, the innermost on top.
    var members: [Member] = []
    var findings = Findings()
    /// Holds the names that had escapes; `members` points into them.
    private var decodedNames: [Bytes] = []

    private init(capacity: Int) {
        writer = CanonicalWriter(capacity: capacity)
        members.reserveCapacity(16)
    }

    /// The canonical form of a request whose text is UTF-8.
    ///
    /// - Parameter capacity: About how many bytes it will have.
    /// - Throws: Why there is none to be had.
    static func write(
        _ root: JSONNode, of endpoint: Endpoint, model: ModelName, capacity: Int, cachesTools: Bool
    ) throws(Question.Bypass) -> Bytes {
        guard root.kind == .object else { throw .malformed }
        var form = CanonicalForm(capacity: capacity)
        _ = try form.gather(root, by: .of(endpoint))
        try form.admit(model, cachesTools: cachesTools)
        form.writer.text(version)
        form.writer.text(endpoint.rawValue)
        form.writer.text(model.description)
        try form.writeMembers(from: 0)
        return form.finish()
    }

    private consuming func finish() -> Bytes { writer.finish() }

    /// Turns away what is not to be kept, before the work of writing it.
    private func admit(_ model: ModelName, cachesTools: Bool) throws(Question.Bypass) {
        guard findings.hasModel, !model.description.isEmpty else { throw .malformed }
        if model.isCloud { throw .cloud }
        if findings.rendersOnly { throw .debug }
        if !findings.asks { throw .load }
        if findings.unloads { throw .unload }
        if findings.hasTools, !cachesTools { throw .tools }
    }

    // MARK: Objects

    /// Pushes the members of an object that are to be written, in the order of their names.
    ///
    /// - Returns: Where they begin; they end with the stack.
    mutating func gather(_ object: JSONNode, by table: FieldTable) throws(Question.Bypass) -> Int {
        let start = try push(object)
        let end = members.count
        if table.ignoresCase { try refuseFolding(from: start) }
        var (place, kept) = (start, start)
        while place < end {
            var member = members[place]
            member.kind = try table.kind(of: member.name)
            if try keeps(member.value, as: member.kind) {
                members[kept] = member
                kept += 1
            }
            place += 1
        }
        members.removeLast(end - kept)
        return start
    }

    /// Writes the members from `start` to the end of the stack as an object, and pops them.
    mutating func writeMembers(from start: Int) throws(Question.Bypass) {
        let end = members.count
        writer.object(end - start)
        var place = start
        while place < end {
            let member = members[place]
            writer.text(member.name.bytes)
            try write(member.value, as: member.kind)
            place += 1
        }
        members.removeLast(end - start)
    }

    /// Pushes all members of an object in the order of their names, which must differ, and tells where they begin.
    mutating func push(_ object: JSONNode) throws(Question.Bypass) -> Int {
        let start = members.count
        for (name, value) in object.members {
            members.append(Member(name: decoded(name), value: value, kind: .unknown))
        }
        sort(from: start)
        var place = start + 1
        while place < members.count {
            if MemberName.compare(members[place - 1].name, members[place].name) == 0 { throw .duplicate }
            place += 1
        }
        return start
    }

    private mutating func decoded(_ name: JSONNode) -> MemberName {
        guard name.hasEscapes else { return MemberName(name.escaped) }
        var buffer = ByteBuffer()
        name.appendDecoded(to: &buffer)
        let bytes = buffer.finish()
        decodedNames.append(bytes)
        return MemberName(bytes.buffer)
    }

    private mutating func sort(from start: Int) {
        let count = members.count - start
        guard count > 1 else { return }
        guard count <= 12 else {
            return members[start...].sort { MemberName.compare($0.name, $1.name) < 0 }
        }
        for end in start + 1..<start + count {
            let member = members[end]
            var place = end
            while place > start, MemberName.compare(member.name, members[place - 1].name) < 0 {
                members[place] = members[place - 1]
                place -= 1
            }
            if place < end { members[place] = member }
        }
    }

    /// Refuses names that differ only by their case: to Go they may be one, of which the last counts, and sorting
    /// loses which that was.
    private func refuseFolding(from start: Int) throws(Question.Bypass) {
        guard members[start...].contains(where: { !$0.name.isPlain }) else { return }
        var folded = members[start...].map { $0.name.bytes.foldedLikeGo }
        folded.sort { $0.lexicographicallyPrecedes($1) }
        for place in folded.indices.dropFirst() where folded[place - 1] == folded[place] { throw .spelling }
    }
}
