extension Gateway {
    /// What can be set. The defaults are those of the program.
    public struct Settings: Sendable {
        /// Bytes of a request body; uploads to `/api/blobs/` may be of any size.
        public var maxBody = 64 << 20
        public var cache = Cache()
        public var queue = Queue()
        public var fleet = Fleet()
        /// Inference requests that a client address may send within a window; 0 for any number.
        public var rateLimit = 10
        public var rateWindow = Duration.seconds(60)
        /// Whether anything is counted and shown: `/metrics`, and the page.
        public var metrics = true
        /// Where spans go: the address of an OpenTelemetry collector, as in `OTEL_EXPORTER_OTLP_ENDPOINT`.
        public var otlpEndpoint: String?

        public nonisolated init() {}

        public struct Cache: Sendable {
            /// How long an answer is fresh; zero turns the cache off, and single flight with it.
            public var ttl = Duration.seconds(30)
            /// For how much longer it may serve while no backend can be reached.
            public var staleIfError = Duration.zero
            /// Bytes of the answers kept and of those being recorded, with what keeping them costs.
            public var maxBytes = 256 << 20
            /// Bytes of one answer.
            public var maxEntryBytes = 4 << 20
            /// Only what would come out the same again.
            public var onlyDeterministic = false
            /// Answers to requests that offer tools, too.
            public var includesTools = false
        }

        public struct Queue: Sendable {
            /// Inference requests that one backend runs at a time, at least one.
            public var concurrency = 4
            /// Inference requests that may wait.
            public var limit = 100
            public var timeout = Duration.seconds(300)
        }

        public struct Fleet: Sendable {
            /// Between two probes of a backend that is well.
            public var healthInterval = Duration.seconds(30)
            public var balance = Balance.roundRobin
            /// Further backends that are asked when one fails.
            public var retries = 2
            public var manage = Manage.all
        }
    }

    /// How a backend is picked among those that can serve.
    public enum Balance: String, CaseIterable, Sendable {
        /// In turn.
        case roundRobin = "round-robin"
        /// That which has the model loaded and runs the fewest requests.
        case leastLoaded = "least-loaded"
        /// That which has the model loaded and the conversation's beginning in its memory.
        case affinity
    }

    /// Which backends requests go to that change models.
    public enum Manage: String, CaseIterable, Sendable {
        /// To all of them.
        case all
        /// To the first that is well.
        case first
        /// To none: they are refused.
        case off
    }
}
