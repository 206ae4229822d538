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

    // MARK: What is a name. Source: Ollama's `types/model/name.go`, `isValidPart`.

    private static let long = String(repeating: "x", count: 80)
    private static let longHost = String(repeating: "h", count: 350)

    @Test(arguments: [
        "x", "X", "_", "0", "llama3.2", "a-b_c.d", "x:7b", "x:Q4_K_M", "x:_", "x:1.5", "mike/x", "_/_",
        "example.com/a/b",
        "example.com:5000/a/b:7b", "localhost:5000/a/b", "registry.ollama.ai/library/x", "https://example.com/a/b",
        " x ", "x:local", "x:cloud", "a--b..c__", "\(long)", "x:\(long)", "\(long)/x", "\(longHost)/a/b",
    ])
    func `this is a name`(written: String) {
        #expect(ModelName(written).isValid)
    }

    @Test(arguments: [
        "", " ", ":", "/", "x:", ":x", "/x", "x/", "a//x", "a/b/c/d", "a/b/c/d:e", "-x", ".x", "x:-7b", "x:.7b",
        "-a/x", ".a/b/x", "x y", "x\ty", "x:7 b", "a b/x", "x+y", "x@y", "x\\y", "x?y", "x#y", "x%2e", "x\u{0}",
        "\u{e9}", "x\u{e9}", "x:\u{661}", "a:5/x", "a:b:c", "x:7b:8b", "h:5:6/x", "h/a:5/x", "../x", "a/../x",
        "https://", "://", "\(long)x", "x:\(long)x", "\(long)x/a", "\(longHost)h/a/b",
    ])
    func `this is none`(written: String) {
        #expect(!ModelName(written).isValid)
    }

    @Test func `a point may stand anywhere but in a namespace`() {
        #expect(ModelName("h.h/a/x.x:7.5").isValid)
        #expect(!ModelName("a.b/x").isValid)
        #expect(!ModelName("h.h/a.b/x").isValid)
    }

    @Test func `only a host has a port, or more than eighty characters`() {
        #expect(ModelName("h:5/a/x").isValid)
        #expect(!ModelName("a:5/x").isValid)
        #expect(!ModelName("\(Self.long)x/x").isValid && !ModelName("\(Self.long)x").isValid)
        #expect(ModelName("\(Self.long)x/a/x").isValid)
    }
}
