import HTTPCore
import Testing

@testable import Gateway

private let hopByHop = [
    "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer",
    "Transfer-Encoding", "Upgrade",
]

/// What the box gets to see of a client's header.
@Suite struct ForwardedRequestTests {
    private let peer = PeerAddress.ipv4(0xc000_0201)

    private func forwarded(_ headers: Headers) -> Headers { Forwarding.request(headers, peer: peer, id: "id-1") }

    @Test(arguments: hopByHop + ["Host", "Content-Length", "Expect", "Origin"])
    func `a field for the gateway alone is dropped, however it is written`(name: String) {
        for name in [name, name.lowercased(), name.uppercased()] {
            let result = forwarded(["Accept": "a", name: "x", "User-Agent": "u"])
            #expect(result[name] == nil)
            #expect(result["accept"] == "a")
            #expect(result["user-agent"] == "u")
        }
    }

    @Test(arguments: [
        "X-Secret", "x-secret", "close, X-Secret", "keep-alive,X-SECRET", "\tx-secret , close", ",x-secret,",
    ])
    func `a field that Connection nominates is dropped`(connection: String) {
        let result = forwarded(["Connection": connection, "X-Secret": "s", "X-Secret-Too": "t"])
        #expect(result["x-secret"] == nil)
        #expect(result["x-secret-too"] == "t")
    }

    @Test func `every Connection field nominates`() {
        let result = forwarded(["A": "1", "Connection": "a", "B": "2", "connection": "b", "C": "3"])
        #expect(result["a"] == nil)
        #expect(result["b"] == nil)
        #expect(result["c"] == "3")
    }

    @Test func `the other fields keep their order, their spelling and their duplicates`() {
        let result = forwarded([
            "Host": "h", "accept": "a/b", "Cookie": "1", "X-A": "", "Connection": "close", "COOKIE": "2",
            "accept": "c/d",
            "Authorization": "Bearer k",
        ])
        #expect(
            Array(result.lines.prefix(6)) == [
                "accept: a/b", "Cookie: 1", "X-A: ", "COOKIE: 2", "accept: c/d", "Authorization: Bearer k",
            ])
    }

    @Test func `nothing is added but where the request came from, and its id`() {
        let result = forwarded(["Host": "gate:8080"])
        #expect(
            result.lines == [
                "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: gate:8080",
                "X-Request-Id: id-1",
            ])
    }

    @Test func `the peer is appended to who forwarded before`() {
        #expect(forwarded(["x-forwarded-for": "10.0.0.1"]).values("x-forwarded-for") == ["10.0.0.1, 192.0.2.1"])
        let twice = forwarded(["X-Forwarded-For": "10.0.0.1, 10.0.0.2", "A": "1", "X-Forwarded-For": "10.0.0.3"])
        #expect(twice.values("x-forwarded-for") == ["10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1"])
    }

    @Test func `an empty X-Forwarded-For leaves no gap`() {
        #expect(forwarded(["X-Forwarded-For": ""]).values("x-forwarded-for") == ["192.0.2.1"])
    }

    @Test(arguments: [
        (PeerAddress.ipv6(0, 1), "::1"), (.ipv6(0x2001_0db8_0000_0000, 0x5), "2001:db8::5"), (.local, "unix"),
    ])
    func `a peer of any kind has a name`(peer: PeerAddress, name: String) {
        #expect(Forwarding.request([:], peer: peer, id: "i")["x-forwarded-for"] == name)
    }

    @Test func `a protocol and a host that a proxy in front has noted are kept`() {
        let result = forwarded(["Host": "inner", "x-forwarded-proto": "https", "X-Forwarded-Host": "outer"])
        #expect(result.values("x-forwarded-proto") == ["https"])
        #expect(result.values("x-forwarded-host") == ["outer"])
    }

    @Test func `a request without a host names none`() {
        #expect(forwarded([:])["x-forwarded-host"] == nil)
    }

    @Test func `the request id takes the place of all that the client sent`() {
        let result = forwarded(["x-request-id": "a", "X-Request-ID": "b"])
        #expect(result.values("x-request-id") == ["id-1"])
    }
}

/// What the client gets to see of a box's header.
@Suite struct ForwardedResponseTests {
    @Test(arguments: hopByHop + ["Content-Length"])
    func `a field for the gateway alone is dropped, however it is written`(name: String) {
        for name in [name, name.lowercased(), name.uppercased()] {
            let result = Forwarding.response(["Content-Type": "a/b", name: "x", "Date": "d"], id: "i")
            #expect(result.lines == ["Content-Type: a/b", "Date: d", "X-Request-Id: i"])
        }
    }

    @Test func `a field that Connection nominates is dropped`() {
        let result = Forwarding.response(["X-Hop": "1", "Connection": "close, x-hop", "X-End": "2"], id: "i")
        #expect(result.lines == ["X-End: 2", "X-Request-Id: i"])
    }

    @Test func `the other fields keep their order, their spelling and their duplicates`() {
        let result = Forwarding.response(
            ["set-cookie": "a", "Date": "d", "Host": "h", "Origin": "o", "Set-Cookie": "b"], id: "i")
        #expect(
            result.lines == ["set-cookie: a", "Date: d", "Host: h", "Origin: o", "Set-Cookie: b", "X-Request-Id: i"])
    }

    @Test func `a box's own request id is kept`() {
        #expect(Forwarding.response(["x-request-id": "box"], id: "i").values("x-request-id") == ["box"])
    }
}
