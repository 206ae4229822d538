import CCurl
import EventLoop

// What libcurl calls, always on the loop's thread and from inside its own functions. The pointers are
// `nonisolated(unsafe)` because they enter the loop's isolation on the loop's own thread: nothing is sent anywhere.

private func client(_ owner: UnsafeMutableRawPointer?) -> HTTPClient {
    // Not retained: the client ends its multi handle, and with it all callbacks, before it goes.
    Unmanaged<HTTPClient>.fromOpaque(owner.unsafelyUnwrapped).takeUnretainedValue()
}

private func handle(_ owner: UnsafeMutableRawPointer?) -> CurlHandle {
    // Not retained: a handle cleans its easy handle up before it goes.
    Unmanaged<CurlHandle>.fromOpaque(owner.unsafelyUnwrapped).takeUnretainedValue()
}

func onSocket(
    _ easy: UnsafeMutableRawPointer?, _ socket: Int32, _ what: Int32,
    _ owner: UnsafeMutableRawPointer?, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    nonisolated(unsafe) let (easy, owner) = (easy, owner)
    Loop.assumeIsolated {
        let transfer = easy.flatMap { gw_curl_owner($0) }.flatMap { handle($0).transfer }
        client(owner).socketChanged(socket, what, by: transfer)
    }
    return 0
}

func onTimer(_ multi: UnsafeMutableRawPointer?, _ milliseconds: Int, _ owner: UnsafeMutableRawPointer?) -> Int32 {
    nonisolated(unsafe) let owner = owner
    Loop.assumeIsolated { client(owner).timerChanged(milliseconds) }
    return 0
}

func onOpenSocket(
    _ owner: UnsafeMutableRawPointer?, _ purpose: curlsocktype, _ address: UnsafeMutablePointer<curl_sockaddr>?
) -> Int32 {
    nonisolated(unsafe) let owner = owner
    guard let address = address?.pointee else { return -1 }
    let (family, type, transport) = (address.family, address.socktype, address.protocol)
    return Loop.assumeIsolated { client(owner).openSocket(family, type, transport) }
}

func onCloseSocket(_ owner: UnsafeMutableRawPointer?, _ socket: Int32) -> Int32 {
    nonisolated(unsafe) let owner = owner
    Loop.assumeIsolated { client(owner).closeSocket(socket) }
    return 0
}

/// One line of the header, or of what comes before or after it.
func onHeader(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ owner: UnsafeMutableRawPointer?) -> Int
{
    nonisolated(unsafe) let owner = owner
    nonisolated(unsafe) let line = UnsafeRawBufferPointer(start: data, count: size * count)
    return Loop.assumeIsolated {
        handle(owner).transfer?.headerLine(line)
        return size * count
    }
}

/// A piece of the body.
func onBody(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ owner: UnsafeMutableRawPointer?) -> Int {
    nonisolated(unsafe) let owner = owner
    nonisolated(unsafe) let chunk = UnsafeRawBufferPointer(start: data, count: size * count)
    return Loop.assumeIsolated {
        handle(owner).transfer?.bodyChunk(chunk) == true ? chunk.count : gw_curl_write_error
    }
}

/// libcurl has room for more of an upload.
func onUpload(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ owner: UnsafeMutableRawPointer?) -> Int
{
    nonisolated(unsafe) let owner = owner
    nonisolated(unsafe) let room = UnsafeMutableRawBufferPointer(start: data, count: size * count)
    return Loop.assumeIsolated { handle(owner).transfer?.uploadMore(into: room) ?? gw_curl_read_abort }
}
