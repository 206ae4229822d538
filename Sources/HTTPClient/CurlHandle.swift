import CCurl
import EventLoop
import Glibc
import HTTPCore

/// One of libcurl's easy handles with the memory it reads from, for one request.
///
/// Not reused: libcurl 7.88 keeps a pointer to the last header line of the request before, which it has freed, and
/// follows it when the first header line of an answer begins with a blank. Connections are the multi handle's and are
/// kept all the same.
@Loop
final class CurlHandle {
    // Unsafe only in name: all three are touched on the loop, and by `deinit`, when nobody is left to use them.
    nonisolated(unsafe) let easy: UnsafeMutableRawPointer
    private nonisolated(unsafe) let errorText: UnsafeMutablePointer<CChar>
    private nonisolated(unsafe) var headerList: UnsafeMutableRawPointer?
    /// The transfer that uses the handle.
    var transfer: Transfer?

    /// Throws ``TransportError`` of kind `local` if there is no memory.
    init(client: HTTPClient) throws {
        guard let easy = curl_easy_init() else {
            throw TransportError(kind: .local, answerBegan: false, isRetrySafe: true, message: "out of memory")
        }
        self.easy = easy
        errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        gw_curl_set_callbacks(
            easy, Unmanaged.passUnretained(self).toOpaque(), onHeader, onBody, onUpload,
            Unmanaged.passUnretained(client).toOpaque(), onOpenSocket, onCloseSocket)
        gw_curl_set_pointer(easy, CURLOPT_ERRORBUFFER, errorText)
        gw_curl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        gw_curl_set_long(easy, CURLOPT_NOPROGRESS, 1)
        // A name look-up cannot be interrupted, and without this whoever gives up on one waits for its thread.
        gw_curl_set_long(easy, CURLOPT_QUICK_EXIT, 1)
        gw_curl_set_long(easy, CURLOPT_FOLLOWLOCATION, 0)
        gw_curl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        gw_curl_set_text(easy, CURLOPT_NOPROXY, "*")
        gw_curl_set_long(easy, CURLOPT_PATH_AS_IS, 1)
        gw_curl_set_long(easy, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        gw_curl_set_long(easy, CURLOPT_TCP_KEEPALIVE, 1)
        gw_curl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, client.options.connectTimeout.milliseconds)
        // A connection that the box has dropped meanwhile is not worth a try.
        gw_curl_set_long(easy, CURLOPT_MAXAGE_CONN, 90)
        if let file = client.options.certificateAuthorities { gw_curl_set_text(easy, CURLOPT_CAINFO, file) }
    }

    deinit {
        curl_easy_cleanup(easy)
        errorText.deallocate()
        headerList?.deallocate()
    }

    /// What libcurl says of the failure.
    var message: String { String(cString: errorText) }

    /// Sets what is to be sent.
    /// - Parameter prefix: the path in the request's origin.
    func prepare(_ request: ClientRequest, prefix: String) {
        errorText.pointee = 0
        gw_curl_set_text(easy, CURLOPT_URL, request.origin)
        (prefix + request.target).withLatin1CString {
            _ = gw_curl_set_text(easy, CURLOPT_REQUEST_TARGET, $0)
        }
        // On a kept connection that turns out to be dead libcurl sends a request again by itself.
        gw_curl_set_long(easy, CURLOPT_FRESH_CONNECT, request.mayBeRepeated ? 0 : 1)
        setMethod(request)
        setHeaders(request)
    }

    private func setMethod(_ request: ClientRequest) {
        switch request.body {
        case .none where request.method == "HEAD":
            gw_curl_set_long(easy, CURLOPT_NOBODY, 1)
        case .none where request.method == "POST" || request.method == "PUT":
            // These promise a body: say that it is empty.
            setBody("", 0)
        case .none:
            gw_curl_set_long(easy, CURLOPT_HTTPGET, 1)
        case .bytes(let bytes):
            setBody(bytes.buffer.baseAddress.map { UnsafeRawPointer($0) }, bytes.count)
        case .stream(_, let length):
            gw_curl_set_long(easy, CURLOPT_POST, 1)
            gw_curl_set_pointer(easy, CURLOPT_POSTFIELDS, nil)
            gw_curl_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, Int(length ?? -1))
        }
        gw_curl_set_text(easy, CURLOPT_CUSTOMREQUEST, request.method)
    }

    /// The memory must stay until the transfer has ended: the transfer holds on to the request.
    private func setBody(_ start: UnsafeRawPointer?, _ count: Int) {
        gw_curl_set_long(easy, CURLOPT_POST, 1)
        gw_curl_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, count)
        gw_curl_set_pointer(easy, CURLOPT_POSTFIELDS, start)
    }

    private func setBody(_ text: StaticString, _ count: Int) {
        setBody(UnsafeRawPointer(text.utf8Start), count)
    }

    /// A name with nothing after the colon takes out a header that libcurl would add.
    private func setHeaders(_ request: ClientRequest) {
        var lines = HeaderLines()
        var (hasAccept, hasType) = (false, false)
        for (name, value) in request.headers.fields {
            lines.add(name, value)
            if Headers.same(name, "accept") { hasAccept = true }
            if Headers.same(name, "content-type") { hasType = true }
        }
        if !hasAccept { lines.add("Accept:") }
        if !hasType { lines.add("Content-Type:") }
        lines.add("Expect:")
        if case .stream(_, nil) = request.body { lines.add("Transfer-Encoding: chunked") }
        let list = lines.list()
        gw_curl_set_pointer(easy, CURLOPT_HTTPHEADER, list)
        headerList = list
    }
}

/// Header lines for libcurl: a `curl_slist` and its texts in one piece of memory, instead of two for each line.
private struct HeaderLines: ~Copyable {
    private var text = ByteBuffer()
    private var count = 0

    /// A field as it is sent; libcurl wants a semicolon behind the name of an empty one.
    mutating func add(_ name: String, _ value: String) {
        text.append(latin1: name)
        text.append(value.isEmpty ? ";" : ": ")
        text.append(latin1: value)
        add("")
    }

    /// A whole line, or the end of one.
    mutating func add(_ line: String) {
        text.append(line)
        text.append("\0")
        count += 1
    }

    /// The list; whoever gets it deallocates it. At least one line was added.
    func list() -> UnsafeMutableRawPointer {
        let nodeBytes = count * MemoryLayout<curl_slist>.stride
        let memory = UnsafeMutableRawPointer.allocate(byteCount: nodeBytes + text.count, alignment: 16)
        let texts = memory + nodeBytes
        texts.copyMemory(from: text.unread.baseAddress.unsafelyUnwrapped, byteCount: text.count)
        let nodes = memory.bindMemory(to: curl_slist.self, capacity: count)
        var start = texts.assumingMemoryBound(to: CChar.self)
        for index in 0..<count {
            nodes[index] = curl_slist(data: start, next: index + 1 < count ? nodes + index + 1 : nil)
            start += strlen(start) + 1
        }
        return memory
    }
}

extension Duration {
    /// Whole milliseconds, at least one: libcurl takes 0 for "for ever".
    var milliseconds: Int { max(1, Int(clampedNanoseconds / 1_000_000)) }
}
