import Testing

@testable import Gateway

@Suite struct BackendTests {
    @Test(arguments: [
        ("localhost", "localhost:11434", "http://localhost:11434"),
        ("127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1:1"),
        ("box-1.lan:65535", "box-1.lan:65535", "http://box-1.lan:65535"),
        ("my_box", "my_box:11434", "http://my_box:11434"),
        ("box/", "box:11434", "http://box:11434"),
        ("box/prefix", "box:11434/prefix", "http://box:11434/prefix"),
        ("http://box", "box", "http://box"),
        ("http://box:8080/", "box:8080", "http://box:8080"),
        ("http://box//", "box", "http://box"),
        ("HTTPS://box/ollama/", "box/ollama", "https://box/ollama"),
        ("https://box:8443/a/b%20c", "box:8443/a/b%20c", "https://box:8443/a/b%20c"),
        ("[::1]", "[::1]:11434", "http://[::1]:11434"),
        ("[::1]:9", "[::1]:9", "http://[::1]:9"),
        ("http://[2001:DB8::5]/x", "[2001:DB8::5]/x", "http://[2001:DB8::5]/x"),
        ("[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.1]:80", "http://[::ffff:192.0.2.1]:80"),
        ("[fe80::1%25eth0]:80", "[fe80::1%25eth0]:80", "http://[fe80::1%25eth0]:80"),
    ])
    func `a box is read from its address`(text: String, name: String, origin: String) throws {
        let backend = try Backend(text)
        #expect(backend.name == name)
        #expect(backend.origin == origin)
    }

    @Test(arguments: [
        ("", "has no host"), (":80", "has no host"), ("/x", "has no host"), ("http://", "has no host"),
        ("http:///x", "has no host"), ("[]", "has no host"), ("[]:80", "has no host"),
        ("ftp://box", "scheme 'ftp'; allowed are http and https"), ("://box", "scheme ''"),
        ("unix:///box", "scheme 'unix'"),
        ("box:", "port ''; allowed is 1 to 65535"), ("box:0", "port '0'"), ("box:65536", "port '65536'"),
        ("box:-1", "port '-1'"), ("box:+80", "port '+80'"), ("box:http", "port 'http'"), ("http:/box", "port ''"),
        ("box:99999999999999999999", "port '99999999999999999999'"), ("[::1]:", "port ''"), ("[::1]:x", "port 'x'"),
        ("::1", "an IPv6 address stands in brackets"), ("fe80::1:80", "more than one colon"),
        ("http://a:1:2", "more than one colon"),
        ("[::1", "opens a bracket and does not close it"),
        ("[::1]80", "something other than a port behind the bracket"),
        ("[box]", "something other than an IPv6 address in brackets"), ("[[::1]", "other than an IPv6 address"),
        ("[::g]", "other than an IPv6 address"), ("::1]", "more than one colon"), ("box]", "no host name has"),
        ("me@box", "contains a user name"), ("http://me:secret@box:80/x", "contains a user name"),
        ("http://box/x?y=1", "a character that no address has"), ("http://box/x#y", "a character that no address has"),
        ("http://box?y=1", "a character that no host name has"), ("box#y", "a character that no host name has"),
        ("a b", "a character that no address has"), (" box", "a character that no address has"),
        ("box ", "a character that no address has"), ("box\n", "a character that no address has"),
        ("http://box/a b", "a character that no address has"), ("b\u{f6}x", "a character that no address has"),
        ("box\u{0}", "a character that no address has"), ("a,b", "a character that no host name has"),
        ("b%6fx", "a character that no host name has"), ("bo'x", "a character that no host name has"),
    ])
    func `what is no address is refused, and the message quotes it and says why`(text: String, reason: String) throws {
        let error = try #require(throws: Backend.Invalid.self) { try Backend(text) }
        #expect(error.description.hasPrefix("'\(text)' "))
        #expect(error.description.contains(reason), "\(error.description)")
    }

    // MARK: Options

    @Test func `unless it is said, a box weighs one, is in the first tier and runs what all run`() throws {
        let backend = try Backend("box")
        #expect(backend.weight == 1 && backend.tier == 1 && backend.concurrency == nil)
        #expect(Backend.local.weight == 1 && Backend.local.tier == 1 && Backend.local.concurrency == nil)
    }

    @Test(
        arguments: [
            ("box;weight=2", 2, 1, nil), ("box;tier=3", 1, 3, nil), ("box;concurrency=8", 1, 1, 8),
            ("box:80;weight=2;tier=3;concurrency=4", 2, 3, 4), ("http://[::1]:80/x/;concurrency=4;weight=2", 2, 1, 4),
            ("box;weight=1;tier=1;concurrency=1", 1, 1, 1),
            ("box;weight=1000;tier=100;concurrency=100000", 1000, 100, 100_000),
            ("box;weight=007", 7, 1, nil),
        ] as [(String, Int, Int, Int?)])
    func `behind the address stands what else there is to say`(
        text: String, weight: Int, tier: Int, concurrency: Int?
    ) throws {
        let backend = try Backend(text)
        #expect(backend.weight == weight && backend.tier == tier && backend.concurrency == concurrency)
        let plain = try Backend(String(text.prefix { $0 != ";" }))
        #expect(backend.name == plain.name && backend.origin == plain.origin)
        #expect((backend == plain) == (weight == 1 && tier == 1 && concurrency == nil))
    }

    @Test(arguments: [
        ("box;", "has '' in it"), ("box;;weight=2", "has '' in it"), ("box;weight", "has 'weight' in it"),
        ("box;heavy=2", "has 'heavy=2' in it; allowed are ;weight=N, ;tier=N and ;concurrency=N"),
        ("box;Weight=2", "has 'Weight=2' in it"), ("box; weight=2", "has ' weight=2' in it"),
        ("box;=2", "has '=2' in it"), ("box;weight=2;x", "has 'x' in it"),
        ("box;weight=2;weight=2", "says 'weight' twice"), ("box;tier=1;weight=1;tier=2", "says 'tier' twice"),
        ("box;weight=0", "has weight '0'; allowed is 1 to 1000"), ("box;weight=1001", "has weight '1001'"),
        ("box;tier=0", "has tier '0'; allowed is 1 to 100"), ("box;tier=101", "has tier '101'"),
        ("box;concurrency=0", "has concurrency '0'; allowed is 1 to 100000"),
        ("box;concurrency=100001", "has concurrency '100001'"), ("box;weight=", "has weight ''"),
        ("box;weight=-1", "has weight '-1'"), ("box;weight=+1", "has weight '+1'"),
        ("box;weight=1.5", "has weight '1.5'"),
        ("box;weight= 1", "has weight ' 1'"), ("box;weight=1=2", "has weight '1=2'"),
        ("box;weight=99999999999999999999", "has weight '99999999999999999999'"),
        ("box;weight=\u{661}", "has weight '\u{661}'"),
    ])
    func `what is no option is refused, and the message says what is allowed`(text: String, reason: String) throws {
        let error = try #require(throws: Backend.Invalid.self) { try Backend(text) }
        #expect(error.description.hasPrefix("'\(text)' "))
        #expect(error.description.contains(reason), "\(error.description)")
    }

    @Test(arguments: [(";weight=2", "has no host"), ("box:0;weight=2", "port '0'"), ("b x;tier=1", "no address has")])
    func `an address is as wrong with options as without`(text: String, reason: String) throws {
        let error = try #require(throws: Backend.Invalid.self) { try Backend(text) }
        #expect(error.description.contains(reason), "\(error.description)")
    }
}
