/// How entries go, other than by eviction.
extension Cache {
    /// Makes every entry a miss from now on, in no time. The memory is freed by ``sweep(at:limit:)`` and as room is
    /// needed.
    /// - Returns: how many entries there were.
    package mutating func purge() -> Int {
        let count = models.purge()
        removals.purged += count
        return count
    }

    /// Makes every entry of a model a miss from now on, in no time, as ``purge()`` does.
    /// - Parameter model: the name as it was stored with.
    /// - Returns: how many entries there were.
    package mutating func purge(model: String) -> Int {
        let count = models.purge(model)
        removals.purged += count
        return count
    }

    /// Entries that were purged and whose memory is not yet free: while there are any, sweeping more often pays.
    package var unsweptCount: Int { models.purgedEntries }

    /// Frees entries that will never be served again, looking at no more than `limit` slots; each call goes on where
    /// the one before stopped.
    /// - Returns: how many it freed.
    @discardableResult
    package mutating func sweep(at now: UInt64, limit: Int) -> Int {
        var freed = 0
        for _ in 0..<min(limit, Int(slots.capacity)) {
            // Not computed beforehand: a page may go on the way.
            hand = hand + 1 < slots.capacity ? hand + 1 : 0
            if slots[hand].pointee.payload != nil, removeIfDead(hand, at: now) { freed += 1 }
        }
        return freed
    }

    /// Removes an entry that was purged, or is too old even to be served stale.
    @discardableResult
    mutating func removeIfDead(_ slot: UInt32, at now: UInt64) -> Bool {
        let isPurged = models.isPurged(slots[slot].pointee.model)
        guard isPurged || age(of: slot, at: now) >= lifetime else { return false }
        removals.expired += isPurged ? 0 : 1
        remove(slot)
        return true
    }

    /// In nanoseconds.
    func age(of slot: UInt32, at now: UInt64) -> UInt64 {
        let storedAt = slots[slot].pointee.storedAt
        return now > storedAt ? now - storedAt : 0
    }

    /// Frees a slot and what it holds, and a page if too many are free.
    mutating func remove(_ slot: UInt32) {
        vacate(slot)
        slots.remove(slot)
        guard slots.isSparse else { return }
        slots.shrink()
        aliases.shrink()
    }

    /// Gives back all that an entry has beside its slot.
    mutating func vacate(_ slot: UInt32) {
        guard let payload = slots[slot].pointee.payload else { return }
        payloadBytes -= Self.cost(of: payload)
        models.release(slots[slot].pointee.model)
        ready.remove(slots[slot].pointee.ready)
        slots[slot].pointee.ready = ReadyTable.none
    }

    /// Lets another entry have the place of this one among those with finished responses.
    mutating func dropReady(of key: Key) {
        guard let slot = slots.find(key) else { return }
        ready.remove(slots[slot].pointee.ready)
        slots[slot].pointee.ready = ReadyTable.none
    }

    /// A page more of everything.
    mutating func grow() {
        slots.grow()
        aliases.grow()
    }
}
