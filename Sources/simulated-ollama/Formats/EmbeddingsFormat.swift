/// How vectors are written on one endpoint.
enum EmbeddingsFormat {
    /// `/api/embed`, with the model's name as the request has it.
    case native(model: String)
    /// `/api/embeddings`: one vector, as the model made it, of whatever length.
    case single
    /// `/v1/embeddings`.
    case openAI(model: String, base64: Bool)

    var contentType: String {
        if case .openAI = self { "application/json" } else { "application/json; charset=utf-8" }
    }

    var normalises: Bool {
        if case .single = self { false } else { true }
    }

    /// - Parameters:
    ///   - vectors: none if the request only loads the model.
    ///   - metrics: what it took; only the totals and the tokens read are told.
    func body(_ vectors: [Embedding], _ metrics: Metrics) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(200 + vectors.reduce(0) { $0 + $1.parts.count * 11 })
        switch self {
        case .native(let model):
            bytes.append(#"{"model":"#)
            bytes.append(quoting: model)
            bytes.append(#","embeddings":["#)
            for (index, vector) in vectors.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                vector.append(to: &bytes)
            }
            bytes.append("]")
            if !vectors.isEmpty { EmbeddingsFormat.append(metrics, to: &bytes) }
            bytes.append("}")
        case .single:
            bytes.append(#"{"embedding":"#)
            if let vector = vectors.first { vector.append(to: &bytes) } else { bytes.append("[]") }
            bytes.append("}")
        case .openAI(let model, let base64):
            bytes.append(#"{"object":"list","data":["#)
            for (index, vector) in vectors.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                EmbeddingsFormat.append(vector, index: index, base64: base64, to: &bytes)
            }
            bytes.append(#"],"model":"#)
            bytes.append(quoting: model)
            bytes.append(#","usage":{"prompt_tokens":"#)
            bytes.append(decimal: metrics.promptTokens)
            bytes.append(#","total_tokens":"#)
            bytes.append(decimal: metrics.promptTokens)
            bytes.append("}}\n")
        }
        return bytes
    }

    private static func append(_ metrics: Metrics, to bytes: inout [UInt8]) {
        bytes.append(#","total_duration":"#)
        bytes.append(decimal: metrics.total)
        bytes.append(#","load_duration":"#)
        bytes.append(decimal: metrics.load)
        bytes.append(#","prompt_eval_count":"#)
        bytes.append(decimal: metrics.promptTokens)
    }

    private static func append(_ vector: Embedding, index: Int, base64: Bool, to bytes: inout [UInt8]) {
        bytes.append(#"{"object":"embedding","embedding":"#)
        if base64 {
            bytes.append(UInt8(ascii: "\""))
            bytes.append(contentsOf: vector.base64)
            bytes.append(UInt8(ascii: "\""))
        } else {
            vector.append(to: &bytes)
        }
        bytes.append(#","index":"#)
        bytes.append(decimal: index)
        bytes.append("}")
    }
}
