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
}
