import CMicroHTTPD
import EventLoop
import HTTPCore

/// A response as libmicrohttpd has it: reference counted, and queued any number of times.
@Loop
final class Rendering {
    /// Unsafe only in name: it never changes, and libmicrohttpd counts its references under a lock of its own.
    nonisolated(unsafe) let pointer: OpaquePointer

    private init(_ pointer: OpaquePointer) { self.pointer = pointer }

    deinit { MHD_destroy_response(pointer) }

    /// The complete response, made once and kept with it.
    /// - Parameter closing: say `Connection: close`; such a rendering is not kept.
    static func whole(_ response: Response, closing: Bool) -> Rendering {
        if !closing, let kept = response.rendering as? Rendering { return kept }
        let rendering = response.declaredLength.map(empty(of:)) ?? memory(response.body)
        rendering.add(response.headers, closing: closing)
        if !closing { response.rendering = rendering }
        return rendering
    }

    /// A body that `body` produces; libmicrohttpd holds on to it until it calls `onStreamFreed`.
    static func stream(_ body: StreamBody, headers: Headers, length: Int?, closing: Bool) -> Rendering {
        let size = length.map(UInt64.init) ?? UInt64.max  // MHD_SIZE_UNKNOWN
        // Only a counted body passes through this buffer.
        let block = length.map { min(max($0, 1), 32 * 1024) } ?? 1
        let context = Unmanaged.passRetained(body).toOpaque()
        let rendering = Rendering(
            made(MHD_create_response_from_callback(size, block, onRead, context, onStreamFreed)))
        rendering.add(headers, closing: closing)
        return rendering
    }

    /// A response whose body lies in memory; libmicrohttpd holds on to it until it calls `onBytesFreed`.
    private static func memory(_ bytes: Bytes) -> Rendering {
        let start = UnsafeMutableRawPointer(mutating: bytes.buffer.baseAddress)
        let context = Unmanaged.passRetained(bytes).toOpaque()
        return Rendering(
            made(
                MHD_create_response_from_buffer_with_free_callback_cls(bytes.count, start, onBytesFreed, context)))
    }

    /// A response that declares a length and is sent without a body, as to HEAD.
    private static func empty(of length: Int) -> Rendering {
        Rendering(made(MHD_create_response_from_callback(UInt64(max(0, length)), 1, { _, _, _, _ in -2 }, nil, nil)))
    }

    /// libmicrohttpd returns nothing only when there is no memory.
    private static func made(_ pointer: OpaquePointer?) -> OpaquePointer {
        guard let pointer else { fatalError("out of memory for a response") }
        return pointer
    }

    private func add(_ headers: Headers, closing: Bool) {
        for field in headers.fields {
            field.name.withLatin1CString { name in
                // libmicrohttpd takes no empty value; one space is the same once it is read.
                let value = field.value.isEmpty ? " " : field.value
                value.withLatin1CString { _ = MHD_add_response_header(pointer, name, $0) }
            }
        }
        if closing { MHD_add_response_header(pointer, "Connection", "close") }
    }
}
