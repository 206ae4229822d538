// swift-tools-version: 6.2
import PackageDescription

/// Warnings are errors where the code is written (debug), not where it is only built (release).
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error, .when(configuration: .debug)),
    // The tests, built for debugging, check at run time that nothing is changed while it is being changed. Checked in
    // the released program too, it cost 6 % of a cache hit's instructions.
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

func target(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .target(name: name, dependencies: dependencies, resources: resources, swiftSettings: settings)
}

func executable(_ name: String, path: String? = nil, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: path, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func testSupport(_ name: String, path: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, path: path, swiftSettings: settings)
}

func debianLibrary(_ name: String, package: String?, pkgConfig: String?) -> Target {
    .systemLibrary(
        name: name,
        path: "Modules/\(name)",
        pkgConfig: pkgConfig,
        providers: package.map { [.apt([$0])] }
    )
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

let package = Package(
    name: "ollama-gateway",
    products: [
        .executable(name: "ollama-gateway", targets: ["ollama-gateway"]),
        .executable(name: "simulated-ollama", targets: ["simulated-ollama"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        debianLibrary("CLinux", package: nil, pkgConfig: nil),
        debianLibrary("CMicroHTTPD", package: "libmicrohttpd-dev", pkgConfig: "libmicrohttpd"),
        debianLibrary("CCurl", package: "libcurl4-openssl-dev", pkgConfig: "libcurl"),
        debianLibrary("COpenSSL", package: "libssl-dev", pkgConfig: "libcrypto"),

        target("EventLoop", ["CLinux"]),
        target("HTTPCore", ["EventLoop"]),
        target("HTTPServer", ["HTTPCore", "EventLoop", "CMicroHTTPD"]),
        target("HTTPClient", ["HTTPCore", "EventLoop", "CCurl"]),
        target("Digests", ["COpenSSL"]),
        target("Gateway", ["HTTPCore", "EventLoop"], resources: [.embedInCode("Page/page.html")]),

        executable(
            "ollama-gateway",
            ["Gateway", "HTTPServer", "HTTPClient", "HTTPCore", "EventLoop", "Digests", argumentParser, logging]),
        executable("simulated-ollama", ["HTTPServer", "HTTPCore", "EventLoop", "Digests", argumentParser]),
        executable("stream-load", path: "Benchmarks/StreamLoad", ["EventLoop", argumentParser]),
        executable("cache-scale", path: "Benchmarks/CacheScale", ["Gateway", "HTTPCore"]),
        executable("pick-scale", path: "Benchmarks/PickScale", ["Gateway"]),

        testSupport("TestSupport", path: "Tests/Support", ["EventLoop"]),
        tests("EventLoopTests", ["EventLoop", "TestSupport"]),
        tests("HTTPCoreTests", ["HTTPCore", "EventLoop", "TestSupport"]),
        tests("HTTPServerTests", ["HTTPServer", "HTTPCore", "EventLoop", "TestSupport"]),
        tests("HTTPClientTests", ["HTTPClient", "HTTPServer", "HTTPCore", "EventLoop", "TestSupport"]),
        tests("DigestsTests", ["Digests"]),
        tests("GatewayTests", ["Gateway", "HTTPCore", "EventLoop", "Digests", "TestSupport"]),
    ],
    swiftLanguageModes: [.v6]
)
