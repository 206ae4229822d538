import CMicroHTTPD
import EventLoop

// What libmicrohttpd calls, always on the loop's thread and from inside MHD_run, MHD_add_connection or
// MHD_stop_daemon. Each thunk finds its object and passes on. The pointers are `nonisolated(unsafe)` because they
// enter the loop's isolation on the loop's own thread: nothing is sent anywhere.

private func server(_ owner: UnsafeMutableRawPointer?) -> HTTPServer {
    // Not retained: the server stops its daemon before it goes, and nothing is called after that.
    Unmanaged<HTTPServer>.fromOpaque(owner.unsafelyUnwrapped).takeUnretainedValue()
}

/// A connection starts or ends.
func onConnection(
    _ owner: UnsafeMutableRawPointer?, _ connection: OpaquePointer?,
    _ context: UnsafeMutablePointer<UnsafeMutableRawPointer?>?, _ code: MHD_ConnectionNotificationCode
) {
    nonisolated(unsafe) let (owner, context) = (owner, context.unsafelyUnwrapped)
    Loop.assumeIsolated {
        if code == .CONNECTION_NOTIFY_STARTED {
            // Retained here, released below when the connection closes.
            context.pointee = server(owner).takeArriving().map { Unmanaged.passRetained($0).toOpaque() }
        } else if let held = context.pointee {
            context.pointee = nil
            server(owner).ended(Unmanaged<Connection>.fromOpaque(held).takeRetainedValue())
        }
    }
}

/// A request line has been read; the pointer returned is the request's context from here on.
func onTarget(
    _ owner: UnsafeMutableRawPointer?, _ target: UnsafePointer<CChar>?, _ handle: OpaquePointer?
) -> UnsafeMutableRawPointer? {
    nonisolated(unsafe) let (handle, target) = (handle.unsafelyUnwrapped, target)
    let exchange = Loop.assumeIsolated {
        // The connection's context is set before its first request and cleared after its last.
        let context = gw_mhd_socket_context(handle).unsafelyUnwrapped
        let connection = Unmanaged<Connection>.fromOpaque(context).takeUnretainedValue()
        return Exchange(on: connection, handle: handle, target: target)
    }
    // Retained here, released in `onCompleted`, which libmicrohttpd calls for every request that came this far.
    return Unmanaged.passRetained(exchange).toOpaque()
}

/// The header has come, a piece of the body has come, or all of it has.
func onAccess(
    _ owner: UnsafeMutableRawPointer?, _ handle: OpaquePointer?, _ url: UnsafePointer<CChar>?,
    _ method: UnsafePointer<CChar>?, _ version: UnsafePointer<CChar>?, _ data: UnsafePointer<CChar>?,
    _ size: UnsafeMutablePointer<Int>?, _ context: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
    guard let context = context?.pointee, let size else { return .NO }
    nonisolated(unsafe) let (held, method, version, data, pending) = (context, method, version, data, size)
    return Loop.assumeIsolated {
        let exchange = Unmanaged<Exchange>.fromOpaque(held).takeUnretainedValue()
        return exchange.advance(method: method, version: version, data: data, size: &pending.pointee) ? .YES : .NO
    }
}

/// A request is over, well or not.
func onCompleted(
    _ owner: UnsafeMutableRawPointer?, _ handle: OpaquePointer?,
    _ context: UnsafeMutablePointer<UnsafeMutableRawPointer?>?, _ code: MHD_RequestTerminationCode
) {
    guard let context, let pointee = context.pointee else { return }
    context.pointee = nil
    nonisolated(unsafe) let held = pointee
    Loop.assumeIsolated {
        let exchange = Unmanaged<Exchange>.fromOpaque(held).takeRetainedValue()
        exchange.completed(well: code == .REQUEST_TERMINATED_COMPLETED_OK)
    }
}

/// libmicrohttpd wants the next bytes of a streamed body.
func onRead(
    _ context: UnsafeMutableRawPointer?, _ position: UInt64, _ buffer: UnsafeMutablePointer<CChar>?, _ room: Int
) -> Int {
    nonisolated(unsafe) let held = context.unsafelyUnwrapped
    nonisolated(unsafe) let target = UnsafeMutableRawBufferPointer(start: buffer, count: room)
    return Loop.assumeIsolated {
        Unmanaged<StreamBody>.fromOpaque(held).takeUnretainedValue().read(into: target)
    }
}

/// libmicrohttpd is done with a streamed body: gives back the reference taken in `Rendering.stream`.
func onStreamFreed(_ context: UnsafeMutableRawPointer?) {
    guard let context else { return }
    Unmanaged<StreamBody>.fromOpaque(context).release()
}

/// libmicrohttpd is done with a body in memory: gives back the reference taken in `Rendering.whole`.
func onBytesFreed(_ context: UnsafeMutableRawPointer?) {
    guard let context else { return }
    Unmanaged<AnyObject>.fromOpaque(context).release()
}
