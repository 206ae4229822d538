import TestSupport

@testable import Gateway

/// What happens to a fleet, each at random, and to its model alike.
extension FleetTrial {
    private static let names = ["a", "b", "c", "d"]

    func happen() {
        if isCalm, running.count > 3 * naive.boxes.count { endSomebody() }
        switch number(0..<100) {
        case 0..<30: enter(randomWant(), queue.takeTicket())
        case 30..<34: comeAgain()
        case 34..<36: giveUp()
        case 36..<52: answerSomebody()
        case 52..<55: if often() { failSomebody() }
        case 55..<72: endSomebody()
        case 72..<75: sendProbe()
        case 75..<82: probeEnds(randomBox(), isWell: !often() || number(0..<10) > 1)
        case 82: staleProbe()
        case 83: if often(), often() { list(at: randomBox()) }
        case 84..<87: sayLoaded(at: randomBox())
        case 87: if often() { drain(randomBox(), number(0..<3) == 0) }
        case 88: if often() { rest(randomBox()) }
        case 89..<91: visit()
        case 91..<95: now += UInt64(number(0..<2_000_000_000))
        default: endSomebody()
        }
    }

    /// In most fleets; in a calm one hardly ever.
    private func often() -> Bool { number(0..<20) < (isCalm ? 1 : 17) }

    private func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

    private func randomBox() -> Int { number(0..<naive.boxes.count) }

    private func randomCall() -> Int? {
        // Sorted: the order of a dictionary is another in each process.
        running.keys.sorted().randomElement(using: &random)
    }

    private func randomWant() -> Balancer.Want {
        var want = Balancer.Want()
        let kind = number(0..<20)
        if kind > 0 { want.model = kind == 1 ? "nowhere" : Self.names[number(0..<Self.names.count)] }
        if !isCalm, number(0..<4) == 0 { want.tried = Set((0..<number(1..<3)).map { _ in randomBox() }).sorted() }
        if number(0..<4) > 0 { want.conversation = UInt64(number(1..<9)) &* 0x9e37_79b9_7f4a_7c15 }
        return want
    }

    // MARK: Requests

    private func comeAgain() {
        guard !again.isEmpty else { return }
        let (ticket, want) = again.remove(at: number(0..<again.count))
        let hasAnother = naive.able(want).contains { box in
            naive.isOpen(box, at: now) || naive.isOnTrial(box) || naive.isOpenInNeed(box, at: now)
        }
        check(queue.balancer.hasAnother(for: want, at: now) == hasAnother, .state, "another for \(want)")
        enter(want, ticket)
    }

    private func giveUp() {
        guard !waiting.isEmpty else { return queue.leave(UInt64(number(0..<1000)) + 1_000_000) }
        saw(.gaveUp)
        queue.leave(waiting.remove(at: number(0..<waiting.count)).ticket)
    }

    private func answerSomebody() {
        guard let id = randomCall(), running[id]?.isAnswered == false, running[id]?.hasFailed == false else { return }
        answer(id, isGood: number(0..<8) > 0)
    }

    func answer(_ id: Int, isGood: Bool) {
        guard let call = running[id], !call.isAnswered, !call.hasFailed else { return }
        running[id]?.isAnswered = true
        check(queue.balancer.mayBeLoading(call.lease) == naive.mayBeLoading(id), .state, "\(call.lease) may be loading")
        let box = call.lease.backend
        let before = naive.boxes[box].changes
        let told = queue.balancer.answered(call.lease, isGood: isGood)
        check(told.loaded == naive.answered(id, isGood: isGood), .state, "\(call.lease) has loaded")
        check(told.changed == (naive.boxes[box].changes != before), .state, "\(call.lease) has changed something")
    }

    private func failSomebody() {
        guard let id = randomCall(), let call = running[id], !call.isAnswered, !call.hasFailed else { return }
        running[id]?.hasFailed = true
        if number(0..<3) == 0 { rest(call.lease.backend) }
        // One that only asks to be left alone is well.
        if number(0..<4) > 0 {
            let mayBeTried = number(0..<3) > 0
            let before = naive.boxes[call.lease.backend].changes
            let changed = queue.balancer.failed(call.lease, "step \(step)", mayBeTriedInNeed: mayBeTried)
            naive.failed(id, mayBeTriedInNeed: mayBeTried)
            check(changed == (naive.boxes[call.lease.backend].changes != before), .state, "\(call.lease) failed")
        }
        if number(0..<4) > 0 { end(id) }
    }

    private func endSomebody() {
        guard let id = randomCall() else { return }
        end(id)
    }

    func end(_ id: Int) {
        guard let call = running.removeValue(forKey: id) else { return }
        let wasNotLoaded = queue.balancer.end(call.lease, at: now)
        check(wasNotLoaded == naive.end(id, at: now), .state, "\(call.lease) has not loaded")
        guard call.hasFailed else { return }
        var want = call.want
        want.tried = Set(want.tried + [call.lease.backend]).sorted()
        again.append((call.ticket, want))
    }

    /// A request that does not queue.
    private func visit() {
        if visits.count < 4 {
            let box = randomBox()
            visits.append((queue.balancer.visit(box, at: now), naive.boxes[box].changes))
            return
        }
        let (lease, changes) = visits.remove(at: number(0..<visits.count))
        if often(), number(0..<4) == 0 {
            _ = queue.balancer.failed(lease, "step \(step)", mayBeTriedInNeed: step % 2 == 0)
            naive.visitFailed(lease.backend, since: changes, mayBeTriedInNeed: step % 2 == 0)
        } else {
            let told = queue.balancer.answered(lease, isGood: true)
            check(!told.changed && !told.loaded, .state, "a visit tells something")
        }
        queue.balancer.end(lease)
    }

    // MARK: Boxes

    private func sendProbe() {
        let box = randomBox()
        guard probes[box] == nil else { return }
        probes[box] = naive.boxes[box].changes
        queue.balancer.probing(box, true)
        naive.boxes[box].isProbing = true
    }

    /// A probe that was sent some time ago comes back, or one that is sent now.
    func probeEnds(_ box: Int, isWell: Bool) {
        if isWell, often(), number(0..<4) == 0 { list(at: box) }
        queue.balancer.probing(box, false)
        naive.boxes[box].isProbing = false
        probeTells(box, isWell: isWell, since: probes.removeValue(forKey: box) ?? naive.boxes[box].changes)
    }

    private func staleProbe() {
        let box = randomBox()
        probeTells(box, isWell: !often(), since: number(0..<naive.boxes[box].changes + 1))
    }

    private func probeTells(_ box: Int, isWell: Bool, since changes: Int) {
        let before = naive.boxes[box].changes
        let changed =
            if isWell {
                queue.balancer.probed(box, since: changes)
            } else {
                queue.balancer.probeFailed(box, since: changes, "step \(step)")
            }
        naive.probed(box, isWell: isWell, since: changes)
        check(changed == (naive.boxes[box].changes != before), .state, "box \(box) was probed")
    }

    func drain(_ box: Int, _ isDrained: Bool) {
        let changed = queue.balancer.drain(box, isDrained)
        check(changed == (naive.boxes[box].isDrained != isDrained), .state, "box \(box) was drained")
        naive.drain(box, isDrained)
    }

    private func rest(_ box: Int) {
        let end = now + UInt64(number(0..<3_000_000_000))
        queue.balancer.rest(box, until: end)
        naive.rest(box, until: end)
    }

    // MARK: Models

    /// A box lists other models than before.
    func list(at box: Int) {
        var listing: [Listing] = []
        for name in Self.names where number(0..<10) < 7 {
            // Now and then another model, or the same as under another name.
            let digest = number(0..<6) == 0 ? "\(name)'" : name == "d" && number(0..<2) == 0 ? "a" : name
            listing.append(Listing("\(name)=\(isCalm ? name : digest)@\(number(0..<4))"))
        }
        // New names one after another: in which order those of one list get their turns is not said.
        let new = listing.indices.filter { naive.chosen[listing[$0].name] == nil }
        for count in new.isEmpty ? 0...0 : 1...new.count {
            let later = new.dropFirst(count)
            let part = listing.indices.filter { !later.contains($0) }.map { listing[$0] }
            queue.balancer.list(part, at: box)
            naive.list(part, at: box)
        }
    }

    /// A box says what it had loaded a while ago: not what it is loading, perhaps not what has run, perhaps something else.
    private func sayLoaded(at box: Int) {
        var digests = naive.boxes[box].loads.filter { $0.isKnown && number(0..<4) > 0 }.map(\.digest)
        if isCalm { digests = Self.names }
        if number(0..<3) == 0 { digests.append(Self.names[number(0..<Self.names.count)]) }
        if number(0..<9) == 0 { digests += [""] + digests }
        let asked = now - UInt64(number(0..<2) * number(0..<1_000_000_000))
        queue.balancer.loaded(digests, at: box, askedAt: asked)
        naive.loaded(digests, at: box, askedAt: asked)
    }
}
