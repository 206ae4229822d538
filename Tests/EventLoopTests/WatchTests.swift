import Glibc
import TestSupport
import Testing

@testable import EventLoop

/// The life of a watch: changed, ended, and its place in the table given to another.
@Suite struct WatchTests {
    let loop = EventLoop()
    let seen = Recorder<String>()

    @Test func `an ended watch is silent`() throws {
        let pipe = Descriptors.pipe()
        pipe.send("x")
        let watch = try loop.mustWatch(pipe.near, for: .read) { [seen] _ in seen.note("called") }
        loop.unwatch(watch)
        loop.schedule(after: .milliseconds(2)) { [loop] in loop.stop() }
        loop.runLimited()
        #expect(seen.values == [])
    }

    @Test func `a handler can end its own watch`() throws {
        let pipe = Descriptors.pipe()
        pipe.send("x")
        let current = Current()
        current.watch = try loop.mustWatch(pipe.near, for: .read) { [loop, seen] _ in
            seen.note("called")
            current.end(on: loop)
            loop.schedule(after: .milliseconds(2)) { loop.stop() }
        }
        loop.runLimited()
        #expect(seen.values == ["called"])
    }

    @Test func `of two ready descriptors, one handler ends the other's watch before its event is delivered`() throws {
        let pipes = [Descriptors.pipe(), Descriptors.pipe()]
        let others = [Current(), Current()]
        for index in 0..<2 {
            pipes[index].send("x")
            // Whichever is served first ends the other one, whose event the same epoll_wait has already fetched.
            others[1 - index].watch = try loop.mustWatch(pipes[index].near, for: .read) { [loop, seen] _ in
                seen.note("called")
                pipes[index].receive()
                others[index].end(on: loop)
                loop.schedule(after: .milliseconds(2)) { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(seen.values == ["called"])
    }

    @Test func `an event fetched for an ended watch does not reach the watch that took its place`() throws {
        let pipes = [Descriptors.pipe(), Descriptors.pipe()]
        let idle = Descriptors.pipe()
        let others = [Current(), Current()]
        let tokens = Recorder<UInt64>()
        for index in 0..<2 {
            pipes[index].send("x")
            others[1 - index].watch = try loop.mustWatch(pipes[index].near, for: .read) { [loop, seen] _ in
                seen.note("ready")
                pipes[index].receive()
                guard let ended = others[index].watch else { return }
                loop.unwatch(ended)
                let successor = loop.watch(idle.near, for: .read) { _ in seen.note("idle") }
                tokens.note(ended.token)
                tokens.note(successor?.token ?? 0)
                loop.schedule(after: .milliseconds(2)) { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(seen.values == ["ready"])
        let (ended, successor) = (tokens.values[0], tokens.values[1])
        #expect(ended & 0xffff_ffff == successor & 0xffff_ffff, "the slot is used again")
        #expect(ended >> 32 + 1 == successor >> 32, "in its next generation")
    }

    @Test func `ending a watch twice does not end the one that took its place`() throws {
        let (first, second) = (Descriptors.pipe(), Descriptors.pipe())
        let ended = try loop.mustWatch(first.near, for: .read) { _ in }
        loop.unwatch(ended)
        second.send("x")
        try loop.mustWatch(second.near, for: .read) { [loop, seen] _ in
            seen.note("second")
            loop.stop()
        }
        loop.unwatch(ended)
        loop.runLimited()
        #expect(seen.values == ["second"])
    }

    @Test func `what a watch waits for can be changed`() throws {
        let sockets = Descriptors.sockets()
        let current = Current()
        current.watch = try loop.mustWatch(sockets.near, for: .write) { [loop, seen] events in
            guard let watch = current.watch else { return }
            if events.contains(.writable) {
                seen.note("writable")
                loop.update(watch, for: .read)
                sockets.send("x")
            } else {
                seen.note("readable")
                loop.update(watch, for: [])
                loop.schedule(after: .milliseconds(2)) { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(seen.values == ["writable", "readable"], "and with nothing to wait for it is silent, though readable")
    }

    @Test func `a watch that waits for nothing still hears that the peer is gone`() throws {
        let sockets = Descriptors.sockets()
        try loop.mustWatch(sockets.near, for: []) { [loop, seen] events in
            seen.note(events == .hungUp ? "hung up" : "something else")
            loop.stop()
        }
        sockets.closeFar()
        loop.runLimited()
        #expect(seen.values == ["hung up"])
    }

    @Test func `a closed descriptor's number can be watched again`() throws {
        for round in 0..<3 {
            let pipe = Descriptors.pipe()
            let current = Current()
            pipe.send("x")
            current.watch = try loop.mustWatch(pipe.near, for: .read) { [loop, seen] _ in
                seen.note("round \(round)")
                current.end(on: loop)
                loop.stop()
            }
            loop.runLimited()
        }
        #expect(seen.values == ["round 0", "round 1", "round 2"])
    }

    @Test func `an ended watch lets go of its handler`() throws {
        final class Witness: Sendable {}
        let pipe = Descriptors.pipe()
        weak var witness: Witness?
        let watch: Watch
        do {
            let held = Witness()
            witness = held
            watch = try loop.mustWatch(pipe.near, for: .read) { _ in withExtendedLifetime(held) {} }
        }
        #expect(witness != nil)
        loop.unwatch(watch)
        #expect(witness == nil)
    }

    /// The watch that a handler wants to end, known only after the handler was made.
    private final class Current: @unchecked Sendable {
        // Why @unchecked Sendable is safe: the loop runs on the test's own thread.
        var watch: Watch?

        func end(on loop: EventLoop) {
            guard let watch else { return }
            loop.unwatch(watch)
        }
    }
}
