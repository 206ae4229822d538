import EventLoop
import HTTPCore

/// What went wrong, where it does not matter what.
struct Failure: Error {}

/// A stream with both its sides in the test's hands.
@Loop final class Passage {
    let stream = ByteStream()
    /// What the consumer says to each chunk.
    var answer = Flow.more
    /// What the producer does when it may go on.
    var whenResumed: (@Loop (Passage) -> Void)?
    private(set) var taken: [String] = []
    private(set) var lastPlace: UnsafeRawPointer?
    private(set) var resumes = 0
    private(set) var cancels = 0
    private var consumer: Task<Void, Never>?
    private var end = "no consumer"

    init() {
        stream.onResume = { [unowned self] in
            resumes += 1
            whenResumed?(self)
        }
        stream.onCancel = { [unowned self] in cancels += 1 }
    }

    func push(_ text: String) -> Flow {
        var text = text
        return text.withUTF8 { stream.push(UnsafeRawBufferPointer($0)) }
    }

    /// Attaches the consumer, in a task that runs at once until it waits.
    @discardableResult
    func consume() -> Task<Void, Never> {
        let task = Loop.task { self.end = await self.forward() }
        consumer = task
        return task
    }

    /// Attaches a consumer that wants the whole body as text.
    func collect(limit: Int = .max, expecting length: Int? = nil) {
        consumer = Loop.task {
            do {
                self.end = try await self.stream.collect(limit: limit, expecting: length).text
            } catch {
                self.end = "\(error)"
            }
        }
    }

    func cancelTask() { consumer?.cancel() }

    /// How the consumer's call ended.
    func outcome() async -> String {
        await consumer?.value
        return end
    }

    func forward() async -> String {
        do {
            try await stream.forward { chunk in
                self.taken.append(String(decoding: chunk, as: UTF8.self))
                self.lastPlace = chunk.baseAddress
                return self.answer
            }
            return "end"
        } catch {
            return "\(error)"
        }
    }
}
