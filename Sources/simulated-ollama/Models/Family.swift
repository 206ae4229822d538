/// What a model of some name is like. The figures are those of the models that go by these names.
struct Family: Sendable {
    struct Abilities: OptionSet, Sendable {
        let rawValue: UInt8

        static let completion = Abilities(rawValue: 1)
        static let embedding = Abilities(rawValue: 2)
        static let tools = Abilities(rawValue: 4)
        static let thinking = Abilities(rawValue: 8)
        static let vision = Abilities(rawValue: 16)
        static let insert = Abilities(rawValue: 32)

        /// In Ollama's words and order.
        var names: [String] {
            let all: [(Abilities, String)] = [
                (.completion, "completion"), (.embedding, "embedding"), (.vision, "vision"), (.tools, "tools"),
                (.insert, "insert"), (.thinking, "thinking"),
            ]
            return all.compactMap { contains($0.0) ? $0.1 : nil }
        }
    }

    let architecture: String
    let parameterSize: String
    let quantization: String
    /// In bytes.
    let size: Int
    let contextLength: Int
    let embeddingLength: Int
    let abilities: Abilities

    /// Decided by the name alone, so that a box needs no files: the first line whose word the name contains.
    static func of(_ name: ModelName) -> Family {
        let text = name.model.lowercased()
        return table.first { text.contains($0.word) }?.family ?? other
    }

    private static let table: [(word: String, family: Family)] = [
        ("nomic-embed", Family("nomic-bert", "137M", "F16", 274_302_450, 2048, 768, .embedding)),
        ("minilm", Family("bert", "23M", "F16", 45_960_996, 512, 384, .embedding)),
        ("embed", Family("bert", "334M", "F16", 669_615_493, 512, 1024, .embedding)),
        ("bge-", Family("bert", "567M", "F16", 1_157_672_605, 8192, 1024, .embedding)),
        ("llava", Family("llama", "7.2B", "Q4_0", 4_733_363_377, 32_768, 4096, [.completion, .vision])),
        ("vision", Family("mllama", "9.8B", "Q4_K_M", 7_901_829_417, 131_072, 4096, [.completion, .vision])),
        ("llama2", Family("llama", "6.7B", "Q4_0", 3_826_793_677, 4096, 4096, .completion)),
        ("codellama", Family("llama", "6.7B", "Q4_0", 3_825_910_662, 16_384, 4096, [.completion, .insert])),
        ("tinyllama", Family("llama", "1.1B", "Q4_0", 637_700_138, 2048, 2048, .completion)),
        ("llama", Family("llama", "3.2B", "Q4_K_M", 2_019_393_189, 131_072, 3072, [.completion, .tools])),
        ("mistral", Family("llama", "7.2B", "Q4_0", 5_137_025_024, 32_768, 4096, [.completion, .tools])),
        ("coder", Family("qwen2", "7.6B", "Q4_K_M", 4_683_087_561, 32_768, 3584, [.completion, .tools, .insert])),
        ("qwen3", Family("qwen3", "8.2B", "Q4_K_M", 5_225_388_164, 40_960, 4096, [.completion, .tools, .thinking])),
        ("deepseek-r1", Family("qwen3", "8.2B", "Q4_K_M", 5_225_376_047, 131_072, 4096, [.completion, .thinking])),
        (
            "gpt-oss",
            Family("gptoss", "20.9B", "MXFP4", 13_793_441_244, 131_072, 2880, [.completion, .tools, .thinking])
        ),
        ("think", Family("llama", "3.2B", "Q4_K_M", 2_019_393_189, 131_072, 3072, [.completion, .tools, .thinking])),
        ("gemma", Family("gemma3", "4.3B", "Q4_K_M", 3_338_801_804, 131_072, 2560, .completion)),
        ("phi", Family("phi3", "3.8B", "Q4_0", 2_176_178_913, 131_072, 3072, .completion)),
    ]

    private static let other = Family("llama", "8.0B", "Q4_K_M", 4_661_224_676, 8192, 4096, [.completion, .tools])

    private init(
        _ architecture: String, _ parameterSize: String, _ quantization: String, _ size: Int,
        _ contextLength: Int, _ embeddingLength: Int, _ abilities: Abilities
    ) {
        self.architecture = architecture
        self.parameterSize = parameterSize
        self.quantization = quantization
        self.size = size
        self.contextLength = contextLength
        self.embeddingLength = embeddingLength
        self.abilities = abilities
    }
}
