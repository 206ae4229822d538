import Testing

@testable import Gateway

@Suite struct ModelNameTests {
    @Test(arguments: [
        ("llama3.2", "llama3.2:latest"), ("LLaMA3.2:3B", "llama3.2:3b"), ("\u{a0} x\n", "x:latest"),
        ("library/x", "x:latest"), ("registry.ollama.ai/library/x:7b", "x:7b"), ("mike/x", "mike/x:latest"),
        ("registry.ollama.ai/mike/x", "mike/x:latest"), ("https://registry.ollama.ai/library/x", "x:latest"),
        ("example.com/library/x", "example.com/library/x:latest"),
        ("example.com:5000/a/b", "example.com:5000/a/b:latest"),
        ("x:local", "x:latest"), ("x:7b:LOCAL", "x:7b"), ("x:cloud", "x:cloud"),
        ("hf.co/a/b:Q4_K_M", "hf.co/a/b:q4_k_m"),
        ("", ""), ("  ", ""),
    ])
    func `a name is written as Ollama lists it`(_ written: String, _ listed: String) {
        #expect(ModelName(written).description == listed)
        #expect(ModelName(listed) == ModelName(written))
    }

    @Test(arguments: ["x:", "/x", "a//x", ":x", "a/", ":", "/", "://", "a/b/c/d/e"])
    func `a name that Ollama refuses equals no valid one`(_ written: String) {
        let name = ModelName(written)
        #expect(name.description.hasPrefix(written))
        #expect(name != ModelName("x") && name != ModelName("a/x"))
    }

    @Test(arguments: [
        ("x:cloud", true), ("X:CLOUD", true), ("x:120b-cloud", true), ("a/x: Cloud ", true), ("x:cloud:local", true),
        ("x-cloud", false), ("x", false), ("cloud", false), ("x:cloudy", false), ("host:5/x-cloud", false),
        ("x:latest", false), ("cloud:7b", false), ("", false),
    ])
    func `cloud models are told by their tag`(_ written: String, _ isCloud: Bool) {
        #expect(ModelName(written).isCloud == isCloud)
    }
}
