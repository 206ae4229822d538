import Glibc

/// The TCP connections that this process has open, counted by asking the kernel: only `/control` wants to know, and
/// the sockets are the server's.
enum OpenConnections {
    static var count: Int {
        guard let directory = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(directory) }
        var count = 0
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let descriptor = Int32(name), isConnected(descriptor) { count += 1 }
        }
        return count
    }

    private static func isConnected(_ descriptor: Int32) -> Bool {
        var address = sockaddr()
        var length = socklen_t(MemoryLayout<sockaddr>.size)
        guard getpeername(descriptor, &address, &length) == 0 else { return false }
        return Int32(address.sa_family) == AF_INET || Int32(address.sa_family) == AF_INET6
    }
}
