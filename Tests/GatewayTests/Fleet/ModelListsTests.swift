import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What boxes say of their models.
@Suite struct ModelListsTests {
    /// As Ollama writes it.
    private static let tags = #"""
        {"models":[{"name":"Llama3.2:latest","model":"Llama3.2:latest",
        "modified_at":"2026-02-02T16:47:16.414524337+01:00","size":2019393189,"digest":"a80c4f17",
        "details":{"parent_model":"","format":"gguf","family":"llama",
        "families":["llama"],"parameter_size":"3.2B","quantization_level":"Q4_K_M"}},
        {"name":"mike/x:7b","model":"mike/x:7b","modified_at":"2026-02-02T15:47:16Z","size":1,"digest":"b0"}]}
        """#

    private static let running = #"""
        {"models":[{"name":"mistral:latest","model":"mistral:latest","size":5137025024,"digest":"2ae6f6dd",
        "details":{"format":"gguf","families":null},"expires_at":"2026-02-02T08:47:16.5-08:00","size_vram":5137025024,
        "context_length":4096}]}
        """#

    @Test func `a list of models is read`() throws {
        let models = try #require(ModelLists.tags(Bytes(Self.tags)))
        #expect(models.map(\.name) == ["llama3.2:latest", "mike/x:7b"])
        #expect(models.map(\.shown) == ["Llama3.2:latest", "mike/x:7b"])
        #expect(models.map(\.digest) == ["a80c4f17", "b0"])
        #expect(models.map(\.modified) == [1_770_047_236_414_524, 1_770_047_236_000_000])
        let second = #"{"name":"mike/x:7b","model":"mike/x:7b","modified_at":"2026-02-02T15:47:16Z","size":1,"#
        #expect(models[1].json == second + #""digest":"b0"}"#)
        #expect(models[0].json.hasPrefix(#"{"name":"Llama"#) && models[0].json.hasSuffix(#""Q4_K_M"}}"#))
    }

    @Test func `a list of what runs is read`() throws {
        let models = try #require(ModelLists.running(Bytes(Self.running)))
        #expect(models.map(\.name) == ["mistral:latest"] && models.map(\.digest) == ["2ae6f6dd"])
        #expect(models.map(\.expires) == [1_770_050_836_500_000])
        #expect(models.map(\.json).allSatisfy { $0.hasSuffix(#""context_length":4096}"#) })
    }

    @Test(arguments: [#"{"models":[]}"#, #"{"models":null}"#, #" {"a":[{}],"models":[]} "#])
    func `a box may have no models`(body: String) {
        #expect(ModelLists.tags(Bytes(body)) == [])
        #expect(ModelLists.running(Bytes(body))?.isEmpty == true)
    }

    @Test(arguments: [
        "", "Ollama is running", "<html></html>", "{", "null", "[]", "7", "{}", #"{"model":[]}"#, #"{"models":{}}"#,
        #"{"models":"m"}"#, #"{"models":[]}{}"#, #"{"models":[{"name":"m"}"#,
    ])
    func `what Ollama would not say is no list`(body: String) {
        #expect(ModelLists.tags(Bytes(body)) == nil)
        #expect(ModelLists.running(Bytes(body)) == nil)
    }

    @Test
    func `entries without a name, or with one that is none, are passed over, and what is missing or odd is nothing`()
        throws
    {
        let body = #"""
            {"models":[7,null,"x",[],{},{"name":""},{"name":7},{"model":"only-model"},
            {"name":"c","digest":5,"modified_at":"yesterday"},{"name":"d","digest":null,"modified_at":0},
            {"name":"two words"},{"name":"x\u001b[2J"},{"name":"f","digest":"\u0007"},
            {"name":"E","digest":"\u0061b","modified_at":null}]}
            """#
        let models = try #require(ModelLists.tags(Bytes(body)))
        #expect(models.map(\.name) == ["only-model:latest", "c:latest", "d:latest", "e:latest"])
        #expect(models.map(\.digest) == ["", "", "", "ab"])
        #expect(models.allSatisfy { $0.modified == 0 })
    }

    @Test func `of ever so many models, ten thousand count`() throws {
        let entries = (0..<10_005).map { #"{"name":"m\#($0)"}"# }.joined(separator: ",")
        let models = try #require(ModelLists.tags(Bytes(#"{"models":[\#(entries)]}"#)))
        #expect(models.count == 10_000 && models.last?.name == "m9999:latest")
    }

    // MARK: Versions

    @Test(
        arguments: [
            (#"{"version":"0.33.0"}"#, "0.33.0"), (#"{"version":"0.5.1-rc0"}"#, "0.5.1-rc0"), (#"{"version":""}"#, nil),
            (#"{"version":5}"#, nil), (#"{"version":null}"#, nil), ("{}", nil), ("", nil), ("0.33.0", nil),
        ] as [(String, String?)])
    func `a version is read`(body: String, version: String?) {
        #expect(ModelLists.version(Bytes(body)) == version)
    }

    @Test func `a version that is a novel is none`() {
        #expect(ModelLists.version(Bytes(#"{"version":"\#(String(repeating: "1", count: 100))"}"#))?.count == 100)
        #expect(ModelLists.version(Bytes(#"{"version":"\#(String(repeating: "1", count: 101))"}"#)) == nil)
    }

    // MARK: Anything

    @Test(arguments: 0..<8 as Range<UInt64>)
    func `whatever a box says, it is a list or none, and each entry of it is one`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var lists = 0
        for _ in 0..<2500 {
            var bytes = Array((seed % 2 == 0 ? Self.tags : Self.running).utf8)
            for _ in 0..<Int.random(in: 0...3, using: &random) { mutate(&bytes, &random) }
            let body = Bytes(bytes)
            let (models, running) = (ModelLists.tags(body), ModelLists.running(body))
            _ = ModelLists.version(body)
            try #require((models == nil) == (running == nil))
            guard let models, let running else { continue }
            lists += 1
            try #require(models.map(\.name) == running.map(\.name) && models.map(\.digest) == running.map(\.digest))
            for model in models {
                try #require(!model.shown.isEmpty && model.name == ModelName(model.shown).description)
                // Bytes that are not UTF-8 are replaced, and do not come back.
                guard String(validating: bytes, as: UTF8.self) != nil else { continue }
                try #require(ModelLists.tags(Bytes(#"{"models":[\#(model.json)]}"#)) == [model])
            }
        }
        #expect(lists > 300)
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
        guard !bytes.isEmpty else { return }
        let place = Int.random(in: 0..<bytes.count, using: &random)
        let length = Int.random(in: 1...min(40, bytes.count - place), using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[place] = Array(#"{}[]",:\0eE.-nt"#.utf8).randomElement(using: &random) ?? 0
        case 2: bytes.removeSubrange(place..<place + length)
        case 3: bytes.insert(contentsOf: bytes[place..<place + length], at: place)
        case 4:
            let other = Int.random(in: 0...place, using: &random)
            bytes.insert(contentsOf: bytes[place..<place + length], at: other)
        default:
            let values = ["null", "[]", "{}", "7", #""x""#, #""\ud800""#, "1e999", "-0", "true"]
            bytes.replaceSubrange(place..<place + 1, with: (values.randomElement(using: &random) ?? "").utf8)
        }
    }
}
