import EventLoop
import Glibc
import TestSupport
import Testing

@Suite struct DescriptorTests {
    let loop = EventLoop()
    let seen = Recorder<Events>()

    @Test func `a pipe becomes readable when something was written`() throws {
        let pipe = Descriptors.pipe()
        try loop.mustWatch(pipe.near, for: .read) { [loop, seen] events in
            seen.note(events)
            #expect(pipe.receive() == "hello")
            loop.stop()
        }
        loop.schedule(after: .milliseconds(1)) {
            #expect(seen.count == 0)
            pipe.send("hello")
        }
        loop.runLimited()
        #expect(seen.values == [.readable])
    }

    @Test func `a pipe whose writer is gone hangs up`() throws {
        let pipe = Descriptors.pipe()
        pipe.closeFar()
        try loop.mustWatch(pipe.near, for: .read) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        loop.runLimited()
        #expect(seen.values == [.hungUp])
    }

    @Test func `a full socket becomes writable when the other end reads`() throws {
        let sockets = Descriptors.sockets()
        Descriptors.fill(sockets.far)
        try loop.mustWatch(sockets.far, for: .write) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        loop.schedule(after: .milliseconds(1)) {
            #expect(seen.count == 0)
            while !sockets.receive().isEmpty {}
        }
        loop.runLimited()
        #expect(seen.values == [.writable])
    }

    @Test func `a socket is readable and writable at once`() throws {
        let sockets = Descriptors.sockets()
        sockets.send("x")
        try loop.mustWatch(sockets.near, for: [.read, .write]) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        loop.runLimited()
        #expect(seen.values == [[.readable, .writable]])
    }

    @Test func `what is not read is reported every turn`() throws {
        let pipe = Descriptors.pipe()
        pipe.send("abc")
        try loop.mustWatch(pipe.near, for: .read) { [loop, seen] events in
            seen.note(events)
            pipe.receive(limit: 1)
            if seen.count == 3 { loop.stop() }
        }
        loop.runLimited()
        #expect(seen.values == [.readable, .readable, .readable])
    }

    @Test func `edge-triggered, what is not read is reported once`() throws {
        let pipe = Descriptors.pipe()
        pipe.send("abc")
        try loop.mustWatch(pipe.near, for: [.read, .edgeTriggered]) { [loop, seen] events in
            seen.note(events)
            // A second write is a second edge, though "abc" has not been read.
            loop.schedule(after: .milliseconds(2)) {
                if seen.count == 1 { pipe.send("d") } else { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(seen.values == [.readable, .readable])
        #expect(pipe.receive() == "abcd")
    }

    @Test func `a peer that only stops writing is seen as closed, not as hung up`() throws {
        let sockets = Descriptors.sockets()
        try loop.mustWatch(sockets.near, for: .peerClosed) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        loop.schedule(after: .milliseconds(1)) { shutdown(sockets.far, Int32(SHUT_WR)) }
        loop.runLimited()
        #expect(seen.values == [.peerClosed])
    }

    @Test func `waiting for the peer to close does not report what arrives before`() throws {
        let sockets = Descriptors.sockets()
        sockets.send("not looked at")
        try loop.mustWatch(sockets.near, for: [.peerClosed, .edgeTriggered]) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        loop.schedule(after: .milliseconds(2)) {
            #expect(seen.count == 0)
            sockets.closeFar()
        }
        loop.runLimited()
        #expect(seen.values == [[.peerClosed, .hungUp]])
    }

    @Test func `a descriptor that epoll cannot watch is refused`() {
        let file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        #expect(loop.watch(-1, for: .read) { _ in } == nil)
        #expect(errno == EBADF)
        let directory = open("/", O_RDONLY | O_CLOEXEC)
        defer { close(directory) }
        #expect(loop.watch(directory, for: .read) { _ in } == nil)
        #expect(errno == EPERM)
    }

    @Test func `a refused watch leaves the table as it was`() throws {
        let pipe = Descriptors.pipe()
        #expect(loop.watch(-1, for: .read) { _ in } == nil)
        pipe.send("x")
        let watch = try loop.mustWatch(pipe.near, for: .read) { [loop, seen] events in
            seen.note(events)
            loop.stop()
        }
        #expect(loop.watch(pipe.near, for: .read) { _ in } == nil, "the kernel takes a descriptor once")
        loop.runLimited()
        #expect(seen.values == [.readable])
        loop.unwatch(watch)
    }

    @Test func `more descriptors than one look at the kernel fetches are all served`() throws {
        let pipes = (0..<300).map { _ in Descriptors.pipe() }
        let served = Recorder<Int>()
        for (index, pipe) in pipes.enumerated() {
            pipe.send("x")
            try loop.mustWatch(pipe.near, for: .read) { [loop] _ in
                pipe.receive()
                served.note(index)
                if served.count == 300 { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(served.values.sorted() == Array(0..<300))
    }
}
