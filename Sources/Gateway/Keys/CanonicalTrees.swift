/// Values of which only the shape is known. Neither way recurses: how deep they are is up to the client.
extension CanonicalForm {
    /// Writes a value in the order in which it stands, numbers as they are written.
    mutating func writeVerbatim(_ value: JSONNode) throws(Question.Bypass) {
        for node in value.subtree {
            switch node.kind {
            case .object:
                try checkOwnNames(of: node)
                writer.object(node.count)
            case .array: writer.array(node.count)
            default: writer.scalar(node)
            }
        }
    }

    /// Checks that no object in a value has a name twice.
    mutating func checkNames(in value: JSONNode) throws(Question.Bypass) {
        for node in value.subtree where node.kind == .object { try checkOwnNames(of: node) }
    }

    private mutating func checkOwnNames(of object: JSONNode) throws(Question.Bypass) {
        let start = try push(object)
        members.removeLast(members.count - start)
    }

    /// Writes a value with its objects sorted, numbers as they are written, and what `table` has as
    /// ``FieldKind/verbatim`` in the order in which it stands.
    mutating func writeSorted(_ value: JSONNode, by table: FieldTable) throws(Question.Bypass) {
        let start = members.count
        members.append(Member(element: value))
        while members.count > start {
            let member = members.removeLast()
            if member.kind != .element { writer.text(member.name.bytes) }
            if member.kind == .verbatim {
                try writeVerbatim(member.value)
            } else {
                try open(member.value, by: table)
            }
        }
    }

    /// Writes a scalar, or the beginning of an object or array, whose content goes onto the stack, the first on top.
    private mutating func open(_ value: JSONNode, by table: FieldTable) throws(Question.Bypass) {
        let start = members.count
        switch value.kind {
        case .object:
            _ = try gather(value, by: table)
            writer.object(members.count - start)
        case .array:
            for element in value.elements { members.append(Member(element: element)) }
            writer.array(members.count - start)
        default: return writer.scalar(value)
        }
        members[start...].reverse()
    }
}

extension CanonicalForm.Member {
    fileprivate init(element: JSONNode) {
        self.init(name: MemberName(UnsafeRawBufferPointer(start: nil, count: 0)), value: element, kind: .element)
    }
}
