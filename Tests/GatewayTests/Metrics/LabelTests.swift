import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Labels, all of which come from bounded sets.
@Suite(.timeLimit(.minutes(2))) struct LabelTests {
    init() { LoopThread.start() }

    // MARK: Routes

    @Test(arguments: [
        ("/", "/"), ("/api/tags", "/api/tags"), ("/api/ps", "/api/ps"), ("/api/show", "/api/show"),
        ("/api/version", "/api/version"), ("/api/pull", "/api/pull"), ("/api/push", "/api/push"),
        ("/api/create", "/api/create"), ("/api/copy", "/api/copy"), ("/api/delete", "/api/delete"),
        ("/v1/models", "/v1/models"), ("/v1/models/", "/v1/models/{model}"), ("/v1/models/a/b:c", "/v1/models/{model}"),
        ("/api/blobs/sha256:0", "/api/blobs/{digest}"), ("/api/blobs/", "/api/blobs/{digest}"), ("/api/blobs", "other"),
        ("/health", "/health"), ("/ready", "/ready"), ("/metrics", "/metrics"), ("/gateway", "/gateway"),
        ("/gateway/", "/gateway"), ("/gateway/events", "/gateway"), ("/gateway/a/b", "/gateway"),
        ("/gateways", "other"), ("/health/", "other"), ("", "other"), ("*", "other"), ("/api/chat/", "other"),
        ("/API/chat", "other"), ("other", "other"), ("/v1/models/{model}", "/v1/models/{model}"),
    ]) func `a path is one of the API's, or another`(path: String, name: String) {
        let route = Route(path: path)
        #expect(route.name == name)
        #expect(!route.isInference)
        #expect(route.endpoint == nil)
        #expect(route.isOwn == ["/health", "/ready", "/metrics", "/gateway"].contains(name))
    }

    @Test(arguments: Endpoint.allCases) func `a model is asked at each endpoint`(endpoint: Endpoint) {
        let route = Route(path: endpoint.rawValue)
        #expect(route == Route(endpoint))
        #expect((route.name, route.endpoint) == (endpoint.rawValue, endpoint))
        #expect(route.isInference && !route.isOwn)
        #expect(route.index == endpoint.index)
    }

    @Test func `names stand once`() {
        #expect(Set(Route.names).count == Route.names.count)
        #expect(Route.names.last == Route.other.name)
    }

    // MARK: What became of requests

    @Test(
        arguments: [
            (nil, "none"), (.hit(ttl: 30), "hit"), (.hit(ttl: 0), "hit"), (.hit(ttl: -1), "stale"), (.miss, "miss"),
            (.coalesced, "coalesced"), (.request, "miss"), (.unsatisfied, "miss"), (.bypass("x"), "bypass"),
        ] as [(CacheUse?, String)])
    func `the cache was used in one of six ways`(use: CacheUse?, name: String) { #expect("\(CacheLabel(use))" == name) }

    @Test func `labels are the words of the catalogue`() {
        #expect(CacheLabel.allCases.map { "\($0)" } == ["none", "hit", "stale", "coalesced", "miss", "bypass"])
        #expect(
            Outcome.allCases.map { "\($0)" } == ["hit", "coalesced", "answered", "refused", "failed", "cancelled"])
        #expect(
            Refusal.allCases.map(\.rawValue) == [
                "rate_limit", "queue_full", "queue_timeout", "no_backend", "unknown_model", "too_large", "malformed",
                "too_slow", "not_cached", "forbidden", "stopping",
            ])
        #expect(
            Fault.Kind.allCases.map(\.rawValue) == [
                "connect", "timeout", "lost", "tls", "resolve", "invalid", "busy", "status", "probe",
            ])
        for cases in [CacheLabel.allCases.map(\.rawValue), Outcome.allCases.map(\.rawValue)] {
            #expect(cases == Array(cases.indices))
        }
    }

    @Test(
        arguments: [
            (200, .miss, nil, .answered), (200, .bypass("x"), nil, .answered), (200, .request, nil, .answered),
            (200, nil, nil, .answered), (200, .hit(ttl: 1), nil, .hit), (200, .coalesced, nil, .coalesced),
            // Stale: the answer is good, and the box is not.
            (200, .hit(ttl: -1), "cannot connect", .hit),
            (200, .miss, "connection lost", .failed), (200, .coalesced, "connection lost", .failed),
            (404, .miss, nil, .refused), (404, .coalesced, nil, .refused), (429, nil, "limit", .refused),
            (400, .bypass("malformed"), nil, .refused), (500, .miss, nil, .failed), (503, .coalesced, "busy", .failed),
            (504, .unsatisfied, "not in the cache", .failed), (499, .miss, "left", .cancelled),
            (499, .coalesced, "left", .cancelled), (499, .hit(ttl: 1), "left", .cancelled), (599, nil, nil, .failed),
            // Ollama's own: nobody has left here.
            (499, .miss, nil, .refused), (499, .coalesced, nil, .refused),
        ] as [(Int, CacheUse?, String?, Outcome)])
    @Loop func `each request has one outcome`(status: Int, use: CacheUse?, error: String?, outcome: Outcome) {
        var record = AccessRecord(of: nil, id: "", at: 0)
        if error == "left" { record.note(Failure.left) }
        (record.status, record.use, record.error) = (status, use, error)
        #expect(Outcome(record) == outcome)
    }

    // MARK: Models

    @Test func `of ten thousand names only those that are known have a number, and a hundred at most`() {
        var labels = ModelLabels()
        var asked = 0
        for round in 0..<2 {
            for number in 0..<10_000 {
                let known = number % 7 == 0
                let label = labels.number(of: "m\(number):latest") {
                    asked += 1
                    return known
                }
                let place = number / 7
                #expect(label == (known && place < 100 ? place + 1 : ModelLabels.other))
            }
            #expect(labels.names.count == 101)
            // Nobody looks any more when there is no number left; 694 is the last that got one.
            #expect(asked == 694, "round \(round)")
        }
        #expect(labels.names.prefix(3) == ["other", "m0:latest", "m7:latest"])
        #expect(labels.number(of: "") { true } == ModelLabels.other)
    }

    @Test func `a model that comes to a backend later gets its number then`() {
        var labels = ModelLabels()
        #expect(labels.number(of: "m:latest") { false } == ModelLabels.other)
        #expect(labels.number(of: "m:latest") { true } == 1)
        #expect(labels.number(of: "m:latest") { false } == 1)
    }

    @Test @Loop func `clients cannot make series`() async throws {
        let rig = try WorkerRig()
        let names = (0..<150).map { "model-\($0):latest" }
        rig.gateway.fleet.isWell(0, with: names)
        let listed = names.map {
            #"{"name":"\#($0)","digest":"digest-of-\#($0)","modified_at":"1970-01-01T00:00:00Z"}"#
        }
        rig.rig.box.probes["/api/tags"] = #"{"models":[\#(listed.joined(separator: ","))]}"#
        for name in names { await rig.fill(Said.ask(model: name), with: Said.lines) }
        // Once more, so that each has been in all ways that follow.
        for name in names { _ = await rig.ask(Said.ask(model: name)) }
        let ways = [
            #"{"model":"nobody-has-$:latest","messages":[]}"#, #"{"model":"$/x/y/z/$","messages":[]}"#,
            #"{"model":"\"$\n","messages":[]}"#, #"{"model":"MODEL-1$9","messages":[]}"#, "$",
        ]
        func ask(_ numbers: Range<Int>) async {
            for number in numbers {
                for way in ways {
                    let asked = await rig.ask(
                        way.split(separator: "$", omittingEmptySubsequences: false)
                            .joined(separator: "\(number)"))
                    if !asked.wasAnsweredAtOnce, asked.status == nil { rig.calls.all.last?.answerWhole("{}", 400) }
                    await asked.end()
                }
            }
        }
        await ask(0..<5)
        let before = try Scraped(rig.gateway.exposition(.text).text)
        await ask(5..<200)
        let after = try Scraped(rig.gateway.exposition(.text).text)
        #expect(Set(after.samples.map(\.series)) == Set(before.samples.map(\.series)))
        let models = Set(after.samples.compactMap { $0.labels["model"] })
        #expect(models.count == 101)
        #expect(models.isSubset(of: names + ["other"]))
        let labels = ["model": "other", "key": "anonymous", "result": "answered"]
        #expect(after.value("ollama_gateway_model_requests_total", labels) == 50)
    }

    @Test @Loop func `a model is labelled as it is listed, however it is spelled`() async throws {
        let rig = try WorkerRig()
        for name in ["m", "M:latest", "library/m"] {
            await rig.fill(Said.ask(#","seed":1"#, model: name, name), with: Said.lines)
        }
        let labels = ["model": "m:latest", "key": "anonymous", "result": "answered"]
        let scraped = try Scraped(rig.gateway.exposition(.text).text)
        #expect(scraped.value("ollama_gateway_model_requests_total", labels) == 3)
    }

    @Test func `a note keeps its parts`() {
        for (model, prompt, completion) in [(0, 0, 0), (100, 1, 2), (7, 0xff_ffff, 0xff_ffff), (1, 1 << 40, 3)] {
            var usage = AnswerUsage()
            (usage.prompt, usage.completion) = (prompt, completion)
            let note = AnswerNote(raw: AnswerNote(model: model, usage).raw)
            #expect((note.model, note.promptTokens) == (model, min(prompt, 0xff_ffff)))
            #expect(note.completionTokens == min(completion, 0xff_ffff))
        }
    }
}
